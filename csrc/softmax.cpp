#include "softmax.inl"
