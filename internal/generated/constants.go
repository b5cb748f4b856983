package generated

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
)

// Constants returns the constants of a generator's source that are declared by
// a plain number, all of them: a declaration of another kind is an error. A
// test compares offsets that assembly uses with the structs they are of.
func Constants(file string) (map[string]uintptr, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		return nil, err
	}
	values := map[string]uintptr{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			lit, ok := v.Values[0].(*ast.BasicLit)
			if !ok {
				return nil, fmt.Errorf("%s: %s isn't a number", file, v.Names[0])
			}
			n, err := strconv.ParseUint(lit.Value, 0, 32)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			values[v.Names[0].Name] = uintptr(n)
		}
	}
	return values, nil
}
