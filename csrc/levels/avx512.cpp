#define NOVACRON_LEVEL avx512
#define NOVACRON_LEVEL_TABLE kAvx512Level
#include "../kernels/level.inc"
