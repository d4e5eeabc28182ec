#define NOVACRON_LEVEL avx512_vnni
#define NOVACRON_LEVEL_TABLE kAvx512VnniLevel
#include "../kernels/level.inc"
