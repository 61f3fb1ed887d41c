#include "rectifiers.inl"
