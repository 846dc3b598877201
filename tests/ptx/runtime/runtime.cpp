// The whole runtime in one translation unit: compiled once, linked to every kernel.
#include "approximate.cpp"
#include "collectives.cpp"
#include "fibres.cpp"
#include "floating.cpp"
#include "launch.cpp"
#include "memory.cpp"
#include "race.cpp"
