#include "native.inl"
