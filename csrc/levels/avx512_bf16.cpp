#define NOVACRON_LEVEL avx512_bf16
#define NOVACRON_LEVEL_TABLE kAvx512Bf16Level
#include "../kernels/level.inc"
