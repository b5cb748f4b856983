// Package printable shows what others have named. Names in an object (of
// programs, functions, maps, types, files) are any bytes at all: some would
// command a terminal, or pretend to be lines of our own.
package printable
