#define NOVACRON_LEVEL portable
#define NOVACRON_LEVEL_TABLE kPortableLevel
#include "../kernels/level.inc"
