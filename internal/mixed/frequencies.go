package mixed

// row is how often an instruction occurs.
type row struct {
	kind
	count int
}

// kind is what of an instruction a row tells: the rest is chosen.
type kind struct {
	op  uint8
	src uint8 // of calls: abi.CallLocal is a function of the program
	imm int32 // of byte swaps the width, of atomic operations which one
	off int16 // of arithmetic: 1 is signed, 8, 16 and 32 extend the sign
}

// realPrograms is a count over 446 programs (Cilium, Falco, Suricata, Katran, Open
// vSwitch, samples of Linux) of 398,103 instructions, an ldimm64 counted once.
// Packet loads of classic BPF, 0.04 % of all, are left out.
var realPrograms = []row{
	{kind{op: 0xbf}, 44753},         // alu64 mov x
	{kind{op: 0x07}, 22940},         // alu64 add k
	{kind{op: 0x71}, 22115},         // ldx mem b
	{kind{op: 0xb4}, 21882},         // alu mov k
	{kind{op: 0x85}, 19052},         // call helper
	{kind{op: 0x18}, 18575},         // ld imm dw
	{kind{op: 0xb7}, 18453},         // alu64 mov k
	{kind{op: 0x67}, 17196},         // alu64 lsh k
	{kind{op: 0x79}, 16520},         // ldx mem dw
	{kind{op: 0x7b}, 15723},         // stx mem dw
	{kind{op: 0x73}, 15501},         // stx mem b
	{kind{op: 0x63}, 14546},         // stx mem w
	{kind{op: 0x61}, 14233},         // ldx mem w
	{kind{op: 0x4f}, 14012},         // alu64 or x
	{kind{op: 0x77}, 12696},         // alu64 rsh k
	{kind{op: 0xbc}, 11191},         // alu mov x
	{kind{op: 0x15}, 9291},          // jmp jeq k
	{kind{op: 0x05}, 8838},          // jmp ja
	{kind{op: 0x6b}, 7324},          // stx mem h
	{kind{op: 0x16}, 7188},          // jmp32 jeq k
	{kind{op: 0x54}, 6000},          // alu and k
	{kind{op: 0x0f}, 5092},          // alu64 add x
	{kind{op: 0x55}, 4191},          // jmp jne k
	{kind{op: 0x56}, 3884},          // jmp32 jne k
	{kind{op: 0x69}, 3688},          // ldx mem h
	{kind{op: 0x4c}, 3676},          // alu or x
	{kind{op: 0x57}, 3605},          // alu64 and k
	{kind{op: 0x64}, 3374},          // alu lsh k
	{kind{op: 0x04}, 3130},          // alu add k
	{kind{op: 0x0c}, 2489},          // alu add x
	{kind{op: 0xc6}, 2407},          // jmp32 jslt k
	{kind{op: 0x74}, 2076},          // alu rsh k
	{kind{op: 0xdc, imm: 16}, 2000}, // alu end x
	{kind{op: 0x2d}, 1988},          // jmp jgt x
	{kind{op: 0x44}, 1517},          // alu or k
	{kind{op: 0x65}, 1402},          // jmp jsgt k
	{kind{op: 0x25}, 1239},          // jmp jgt k
	{kind{op: 0x37}, 1014},          // alu64 div k
	{kind{op: 0x5f}, 989},           // alu64 and x
	{kind{op: 0xc7}, 908},           // alu64 arsh k
	{kind{op: 0x34}, 786},           // alu div k
	{kind{op: 0x66}, 749},           // jmp32 jsgt k
	{kind{op: 0x47}, 657},           // alu64 or k
	{kind{op: 0xae}, 649},           // jmp32 jlt x
	{kind{op: 0x1e}, 643},           // jmp32 jeq x
	{kind{op: 0xa4}, 605},           // alu xor k
	{kind{op: 0x6f}, 563},           // alu64 lsh x
	{kind{op: 0x26}, 504},           // jmp32 jgt k
	{kind{op: 0x1c}, 493},           // alu sub x
	{kind{op: 0x1f}, 481},           // alu64 sub x
	{kind{op: 0x5d}, 452},           // jmp jne x
	{kind{op: 0x95}, 449},           // jmp exit
	{kind{op: 0x1d}, 423},           // jmp jeq x
	{kind{op: 0xac}, 418},           // alu xor x
	{kind{op: 0xc4}, 400},           // alu arsh k
	{kind{op: 0xa6}, 292},           // jmp32 jlt k
	{kind{op: 0xdb, imm: 0x1}, 276}, // stx atomic dw
	{kind{op: 0xc5}, 247},           // jmp jslt k
	{kind{op: 0x6d}, 217},           // jmp jsgt x
	{kind{op: 0x3d}, 195},           // jmp jge x
	{kind{op: 0x27}, 191},           // alu64 mul k
	{kind{op: 0x5e}, 188},           // jmp32 jne x
	{kind{op: 0xaf}, 157},           // alu64 xor x
	{kind{op: 0xdb}, 144},           // stx atomic dw
	{kind{op: 0xa7}, 138},           // alu64 xor k
	{kind{op: 0x2c}, 128},           // alu mul x
	{kind{op: 0xdc, imm: 32}, 112},  // alu end x
	{kind{op: 0x5c}, 94},            // alu and x
	{kind{op: 0xbd}, 79},            // jmp jle x
	{kind{op: 0xad}, 66},            // jmp jlt x
	{kind{op: 0x6c}, 62},            // alu lsh x
	{kind{op: 0x84}, 45},            // alu neg k
	{kind{op: 0x2e}, 44},            // jmp32 jgt x
	{kind{op: 0xa5}, 42},            // jmp jlt k
	{kind{op: 0x87}, 41},            // alu64 neg k
	{kind{op: 0xbe}, 36},            // jmp32 jle x
	{kind{op: 0x7f}, 32},            // alu64 rsh x
	{kind{op: 0x7d}, 31},            // jmp jsge x
	{kind{op: 0x3e}, 24},            // jmp32 jge x
	{kind{op: 0x9c}, 20},            // alu mod x
	{kind{op: 0x24}, 20},            // alu mul k
	{kind{op: 0x3f}, 17},            // alu64 div x
	{kind{op: 0xdc, imm: 64}, 17},   // alu end x
	{kind{op: 0x2f}, 15},            // alu64 mul x
	{kind{op: 0x9f}, 6},             // alu64 mod x
	{kind{op: 0x85, src: 1}, 4},     // call bpf2bpf
	{kind{op: 0xc3}, 1},             // stx atomic w
}
