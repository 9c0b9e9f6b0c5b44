/* version.h: what `whet --version` says and the store records. */
#ifndef WHET_RL_VERSION_H
#define WHET_RL_VERSION_H

#define WHET_VERSION "0.1.0"

#endif
