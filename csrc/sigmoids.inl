#include "sigmoids.h"

#include "activation.h"

DL4PY_CHEAP(cube)
DL4PY_ACTIVATION(rationaltanh, double, double)
DL4PY_ACTIVATION(tanh)
DL4PY_ACTIVATION(sigmoid)
DL4PY_ACTIVATION(softplus)
DL4PY_ACTIVATION(log1exp)
DL4PY_ACTIVATION(gelu, double)
DL4PY_ACTIVATION(gelutanh)
DL4PY_ACTIVATION(mish)
DL4PY_CHEAP(softsign)
