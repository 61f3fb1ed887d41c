#include "losses.inl"
