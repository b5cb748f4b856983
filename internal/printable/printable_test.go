package printable

import "testing"

func TestPrintable(t *testing.T) {
	for _, c := range []struct{ s, name, text string }{
		{"", "", ""},
		{"filter.2", "filter.2", "filter.2"},
		{`"quoted" name, größer`, `"quoted" name, größer`, `"quoted" name, größer`},
		{"a\tb", `"a\tb"`, "a\tb"},
		{"a\nb", `"a\nb"`, `"a\nb"`},
		{"\x1b[31mred", `"\x1b[31mred"`, `"\x1b[31mred"`},
		{"\u009b31m", `"\u009b31m"`, `"\u009b31m"`}, // the same in one character
		{"a\u202eb", `"a\u202eb"`, `"a\u202eb"`},    // from right to left
		{"\xff\t", `"\xff\t"`, `"\xff\t"`},          // no UTF-8
		{"\uFFFD", "\uFFFD", "\uFFFD"},              // what is shown for it
		{`"a\nb"`, `"a\nb"`, `"a\nb"`},              // again: as it is
		{"a\rb", `"a\rb"`, `"a\rb"`},
	} {
		if got := Name(c.s); got != c.name {
			t.Errorf("Name(%q) is %s, want %s", c.s, got, c.name)
		}
		if got := Text(c.s); got != c.text {
			t.Errorf("Text(%q) is %s, want %s", c.s, got, c.text)
		}
	}
}
