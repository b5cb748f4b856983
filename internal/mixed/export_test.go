package mixed

// What the tests look at.

type Kind = kind

var KindOf, RealPrograms = kindOf, realPrograms

func (r row) Kind() Kind { return r.kind }
func (r row) Count() int { return r.count }
func (k kind) Op() uint8 { return k.op }
