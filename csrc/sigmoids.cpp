#include "sigmoids.inl"
