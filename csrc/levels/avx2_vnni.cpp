#define NOVACRON_LEVEL avx2_vnni
#define NOVACRON_LEVEL_TABLE kAvx2VnniLevel
#include "../kernels/level.inc"
