#define NOVACRON_LEVEL avx2
#define NOVACRON_LEVEL_TABLE kAvx2Level
#include "../kernels/level.inc"
