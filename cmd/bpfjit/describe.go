package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// describe tells in a line what an Ethernet frame holds, as far as it can be
// told: "TCP 198.51.100.7:51234 > 192.0.2.1:443 SYN".
func describe(frame []byte) string {
	if len(frame) < 14 {
		return "no Ethernet frame"
	}
	kind, rest := binary.BigEndian.Uint16(frame[12:]), frame[14:]
	var tags []string
	for (kind == 0x8100 || kind == 0x88a8) && len(rest) >= 4 {
		tags = append(tags, fmt.Sprint(binary.BigEndian.Uint16(rest)&0xfff))
		kind, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	text := describeNetwork(kind, rest)
	if tags != nil {
		text += ", VLAN " + strings.Join(tags, " and ")
	}
	return text
}

func describeNetwork(kind uint16, b []byte) string {
	switch {
	case kind == 0x0806 && len(b) >= 28 && b[7] == 1:
		return fmt.Sprintf("ARP who has %v? tell %v", address(b[24:28]), address(b[14:18]))
	case kind == 0x0806 && len(b) >= 28 && b[7] == 2:
		return fmt.Sprintf("ARP %v is at % x", address(b[14:18]), b[8:14])
	case kind == 0x0800 && len(b) >= 20 && b[0]>>4 == 4 && b[0]&15 >= 5:
		src, dst, size := address(b[12:16]), address(b[16:20]), int(b[0]&15)*4
		if fragment := binary.BigEndian.Uint16(b[6:]) & 0x1fff; fragment != 0 {
			return fmt.Sprintf("IPv4 %v > %v, fragment at %d", src, dst, fragment*8)
		}
		return describeTransport(b[9], src, dst, b[min(size, len(b)):])
	case kind == 0x86dd && len(b) >= 40 && b[0]>>4 == 6:
		return describeTransport(b[6], address(b[8:24]), address(b[24:40]), b[40:])
	}
	return fmt.Sprintf("Ethernet, type %#04x", kind)
}

func describeTransport(proto byte, src, dst netip.Addr, b []byte) string {
	ports := func() string {
		return fmt.Sprintf("%v > %v",
			netip.AddrPortFrom(src, binary.BigEndian.Uint16(b)),
			netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:])))
	}
	switch {
	case proto == 6 && len(b) >= 14:
		return "TCP " + ports() + tcpFlags(b[13])
	case proto == 6:
		return fmt.Sprintf("TCP %v > %v, cut short", src, dst)
	case proto == 17 && len(b) >= 8:
		return "UDP " + ports()
	case proto == 17:
		return fmt.Sprintf("UDP %v > %v, cut short", src, dst)
	case proto == 1 && len(b) >= 8 && b[0] == 8, proto == 58 && len(b) >= 8 && b[0] == 128:
		return fmt.Sprintf("ping %v > %v", src, dst)
	case proto == 1 && len(b) >= 8 && b[0] == 0, proto == 58 && len(b) >= 8 && b[0] == 129:
		return fmt.Sprintf("ping reply %v > %v", src, dst)
	}
	return fmt.Sprintf("IP protocol %d, %v > %v", proto, src, dst)
}

func tcpFlags(b byte) string {
	var s strings.Builder
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG"} {
		if b>>i&1 != 0 {
			s.WriteString(" " + name)
		}
	}
	return s.String()
}

// address makes an address of 4 or 16 bytes.
func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}
