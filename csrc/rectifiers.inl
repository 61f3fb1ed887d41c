#include "rectifiers.h"

#include "activation.h"

DL4PY_ACTIVATION(rectifiedtanh)
DL4PY_CHEAP(hardsigmoid, double)
DL4PY_CHEAP(hardtanh)
DL4PY_CHEAP(leakyrelu, double)
DL4PY_ACTIVATION(elu, double)
DL4PY_ACTIVATION(selu)
DL4PY_CHEAP(rectifier, double, double, double)
DL4PY_ACTIVATION(rrelu, Seed, double, double)
