package bpf

// The two halves of Check.

func Quick(p *Program, d Dialect) bool {
	c := checker{p: p, dialect: d}
	return c.quick(new(Survey))
}

func Exact(p *Program, d Dialect) error {
	c := checker{p: p, dialect: d}
	return c.exact()
}
