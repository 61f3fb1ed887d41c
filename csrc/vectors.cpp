#include "vectors.inl"
