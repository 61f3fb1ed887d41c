#include "sums.inl"
