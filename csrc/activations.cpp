#include "activations.inl"
