#include "updates.inl"
