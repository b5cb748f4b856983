package bpf

// The two halves of Check.

func Quick(p *Program, d Dialect) bool {
	return new(Survey).quick(p, d)
}

func Exact(p *Program, d Dialect) error {
	c := checker{p: p, dialect: d}
	return c.exact()
}
