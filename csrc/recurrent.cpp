#include "recurrent.inl"
