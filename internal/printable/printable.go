package printable

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Name returns a name as it is if it can be printed, and quoted as Go does if not.
func Name(s string) string { return quoted(s, "") }

// Text does the same for a line of text, in which tabs are all right.
func Text(s string) string { return quoted(s, "\t") }

// quoted quotes s if it has a rune that is neither printable nor in allowed, or
// bytes that are none.
func quoted(s, allowed string) string {
	strange := func(r rune) bool { return !strconv.IsPrint(r) && !strings.ContainsRune(allowed, r) }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, strange) {
		return s
	}
	return strconv.Quote(s)
}
