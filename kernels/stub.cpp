#include "autosparse.h"
extern "C" int as_abi_version(void){return AS_ABI_VERSION;}
