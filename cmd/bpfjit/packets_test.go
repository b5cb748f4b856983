package main

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// TestExamplePackets decodes the example's packets with another decoder, and
// recomputes their checksums.
func TestExamplePackets(t *testing.T) {
	packets, err := parseHex(examplePackets)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	sums := 0
	for i, p := range packets {
		got = append(got, describe(p))
		decoded := gopacket.NewPacket(p, layers.LinkTypeEthernet, gopacket.Default)
		if e := decoded.ErrorLayer(); e != nil && i != len(packets)-1 {
			t.Errorf("packet %d: %v", i+1, e.Error())
		}
		if ip, ok := decoded.NetworkLayer().(*layers.IPv4); ok {
			if s := sum(ip.Contents, 0); s != 0xffff {
				t.Errorf("packet %d: the IPv4 header sums up to %#x", i+1, s)
			}
			sums++
		}
		if l := decoded.Layer(layers.LayerTypeICMPv4); l != nil {
			if s := sum(append(l.LayerContents(), l.LayerPayload()...), 0); s != 0xffff {
				t.Errorf("packet %d: ICMP sums up to %#x", i+1, s)
			}
			sums++
		}
		if l := decoded.TransportLayer(); l != nil {
			segment := append(append([]byte{}, l.LayerContents()...), l.LayerPayload()...)
			if s := sum(segment, pseudo(decoded, l, len(segment))); s != 0xffff {
				t.Errorf("packet %d: %v sums up to %#x", i+1, l.LayerType(), s)
			}
			sums++
		}
	}
	if sums != 13 {
		t.Errorf("%d checksums, want 13", sums)
	}
	want := []string{
		"ARP who has 192.0.2.1? tell 192.0.2.2",
		"TCP 198.51.100.7:51234 > 192.0.2.1:443 SYN",
		"TCP 198.51.100.7:51235 > 192.0.2.1:23 SYN",
		"UDP 198.51.100.7:40000 > 192.0.2.1:53",
		"ping 198.51.100.7 > 192.0.2.1",
		"TCP [2001:db8:7::53]:40001 > [2001:db8::1]:80 PSH ACK",
		"UDP 198.51.100.7:40002 > 192.0.2.1:1900, VLAN 100",
		"UDP [2001:db8:7::53]:40003 > [2001:db8::1]:53, VLAN 7 and 100",
		"TCP 198.51.100.7 > 192.0.2.1, cut short",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("descriptions (-want +got):\n%s", diff)
	}
}

// sum is the internet checksum of b, with a partial sum to begin with, not yet
// inverted.
func sum(b []byte, s uint32) uint32 {
	for i := 0; i < len(b); i += 2 {
		w := [2]byte{b[i]}
		if i+1 < len(b) {
			w[1] = b[i+1]
		}
		s += uint32(binary.BigEndian.Uint16(w[:]))
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return s
}

// pseudo is the sum of the pseudo header of a segment.
func pseudo(p gopacket.Packet, l gopacket.TransportLayer, size int) uint32 {
	n := p.NetworkLayer().NetworkFlow()
	proto := uint32(17)
	if l.LayerType() == layers.LayerTypeTCP {
		proto = 6
	}
	return sum(append(n.Src().Raw(), n.Dst().Raw()...), proto+uint32(size))
}

func TestParsePackets(t *testing.T) {
	for _, test := range []struct {
		text string
		want []string
		err  string
	}{
		{"", nil, ""},
		{"00 01\n02\n\n# a comment\n03 # another\n# and one in between\n04\n\n\n", []string{"000102", "0304"}, ""},
		{"AbCd", []string{"abcd"}, ""},
		{"abc", nil, "line 1: encoding/hex: odd length hex string"},
		{"hello", []string{hex.EncodeToString([]byte("hello"))}, ""},
		{"\x00\x01\x02\xff", []string{"000102ff"}, ""},
		{"\xd4\xc3\xb2\xa1", nil, "EOF"},
		{"\n\r\r\n", nil, "EOF"},
	} {
		packets, err := parsePackets([]byte(test.text))
		if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%q: %v, want %q", test.text, err, test.err)
		}
		var got []string
		for _, p := range packets {
			got = append(got, hex.EncodeToString(p))
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.text, diff)
		}
	}
}

// FuzzDescribe: no packet is too strange to be told of in a line.
func FuzzDescribe(f *testing.F) {
	packets, err := parseHex(examplePackets)
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range packets {
		f.Add(p)
		f.Add(p[:len(p)/2])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if s := describe(p); s == "" || strings.ContainsAny(s, "\n\t") {
			t.Errorf("%q", s)
		}
	})
}
