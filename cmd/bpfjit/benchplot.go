package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/bpfjit/bpfjit/internal/stages"
)

// The plot, in pixels:
//
//	+--------------------------------------------------+
//	| title                                            |
//	|      plain              |      blinded           |
//	|  ns |                   |  |                     |
//	|     |   areas by stage  |  |                     |
//	|     +----------------   |  +-------------------  |
//	|      20  100 ... insns  |   20   100             |
//	| legend                                           |
//	+--------------------------------------------------+
const (
	plotWidth, plotHeight = 980, 440
	panelWidth            = 380
	panelHeight           = 270
	panelTop              = 80
	panelPlain            = 70  // left edges
	panelBlinded          = 560 //
)

// stageColours are told apart by colour-blind people too, on white and on
// black.
var stageColours = [stages.NumStages]string{
	stages.Decode: "#8c8c8c", stages.Check: "#56b4e9", stages.Lower: "#cc79a7", stages.Blind: "#d55e00",
	stages.Draft: "#e69f00", stages.Jumps: "#009e73", stages.Join: "#0072b2",
}

const plotStyle = `
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .small { font-size: 12px; fill: #59636e }
  .ground { fill: #ffffff }
  .axis { stroke: #59636e; fill: none }
  .grid { stroke: #d1d9e0; fill: none }
  .total { stroke: #1f2328; stroke-width: 2; stroke-dasharray: 6 3; fill: none }
  .dot { fill: #1f2328 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .small { fill: #9198a1 }
    .ground { fill: #0d1117 }
    .axis { stroke: #9198a1 }
    .grid { stroke: #3d444d }
    .total { stroke: #f0f6fc }
    .dot { fill: #f0f6fc }
  }
`

// panel is one of the two diagrams: programs that compiled, by size.
type panel struct {
	left        float64
	points      []point
	first, last float64 // sizes at the edges
	top         float64 // nanoseconds at the upper edge
}

// point is a program in a panel.
type point struct {
	insns  int
	result *benchResult
}

func (p *panel) x(insns float64) float64 {
	if p.last == p.first {
		return p.left + panelWidth/2
	}
	return p.left + panelWidth*math.Log(insns/p.first)/math.Log(p.last/p.first)
}

func (p *panel) y(ns float64) float64 { return panelTop + panelHeight*(1-ns/p.top) }

// plot writes the generated programs as SVG: time an instruction over size,
// the stages on top of each other.
func (r *benchReport) plot(w io.Writer) {
	plain, blinded := panel{left: panelPlain}, panel{left: panelBlinded}
	highest := 0.0
	for _, g := range r.Generated {
		for _, x := range []struct {
			p *panel
			r *benchResult
		}{{&plain, g.Plain}, {&blinded, g.Blinded}} {
			if x.r.Refused != "" {
				continue
			}
			x.p.points = append(x.p.points, point{g.Insns, x.r})
			sum := 0.0
			for _, s := range r.shown() {
				sum += x.r.stage(s)
			}
			highest = max(highest, sum, x.r.stage(stages.Total))
		}
	}
	step := roundStep(highest / 6)
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n",
		plotWidth, plotHeight, plotWidth, plotHeight)
	fmt.Fprintf(w, "<title>%s</title>\n<style>%s</style>\n", escape("Time to compile "+r.Object), plotStyle)
	fmt.Fprintf(w, `<rect class="ground" width="%d" height="%d"/>`+"\n", plotWidth, plotHeight)
	label(w, panelPlain, 30, "title", "start", fmt.Sprintf("Compiling programs like %s, profile %s", r.Object, r.Profile))
	for _, x := range []struct {
		name string
		p    *panel
	}{{"plain", &plain}, {"constants hidden", &blinded}} {
		x.p.first, x.p.last = float64(r.Generated[0].Insns), float64(r.Generated[len(r.Generated)-1].Insns)
		x.p.top = step * max(1, math.Ceil(highest/step))
		x.p.frame(w, x.name, step, r.Generated)
		x.p.areas(w, r.shown())
	}
	r.legend(w)
	fmt.Fprint(w, "</svg>\n")
}

// roundStep returns 1, 2 or 5 times a power of ten, at least v.
func roundStep(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, k := range []float64{1, 2, 5} {
		if k*power >= v {
			return k * power
		}
	}
	return 10 * power
}

// frame draws the axes and what they mean.
func (p *panel) frame(w io.Writer, name string, step float64, sizes []*benchProgram) {
	right := p.left + panelWidth
	label(w, p.left+panelWidth/2, panelTop-14, "", "middle", name)
	for k := 0; float64(k)*step <= p.top*1.0001; k++ {
		ns := float64(k) * step
		fmt.Fprintf(w, `<path class="grid" d="M%s %sH%s"/>`+"\n", coord(p.left), coord(p.y(ns)), coord(right))
		label(w, p.left-8, p.y(ns)+4, "small", "end", strconv.FormatFloat(ns, 'g', 4, 64))
	}
	end := math.Inf(-1) // of the label before
	for _, g := range sizes {
		x := p.x(float64(g.Insns))
		fmt.Fprintf(w, `<path class="axis" d="M%s %dv5"/>`+"\n", coord(x), panelTop+panelHeight)
		text := thousands(g.Insns)
		half := 3.5 * float64(len(text))
		if x-half > end {
			label(w, x, panelTop+panelHeight+20, "small", "middle", text)
			end = x + half + 6
		}
	}
	fmt.Fprintf(w, `<path class="axis" d="M%s %dv%dh%d"/>`+"\n", coord(p.left), panelTop, panelHeight, panelWidth)
	label(w, p.left+panelWidth/2, panelTop+panelHeight+40, "small", "middle", "instructions of the program")
	fmt.Fprintf(w, `<text class="small" text-anchor="middle" transform="translate(%s %d) rotate(-90)">nanoseconds an instruction</text>`+"\n",
		coord(p.left-46), panelTop+panelHeight/2)
}

// areas draws the stages on top of each other, and over them the time of the
// whole way.
func (p *panel) areas(w io.Writer, shown []stages.Stage) {
	if len(p.points) == 0 {
		label(w, p.left+panelWidth/2, panelTop+panelHeight/2, "small", "middle", "no program could be compiled")
		return
	}
	below := make([]float64, len(p.points))
	for _, s := range shown {
		var up, down []string
		for k, pt := range p.points {
			x := coord(p.x(float64(pt.insns)))
			down = append(down, x+" "+coord(p.y(below[k])))
			below[k] += pt.result.stage(s)
			up = append(up, x+" "+coord(p.y(below[k])))
		}
		for i, j := 0, len(down)-1; i < j; i, j = i+1, j-1 {
			down[i], down[j] = down[j], down[i]
		}
		fmt.Fprintf(w, `<path fill="%s" stroke="%s" d="M%sL%sZ"><title>%v</title></path>`+"\n",
			stageColours[s], stageColours[s], strings.Join(up, "L"), strings.Join(down, "L"), s)
	}
	var line []string
	for _, pt := range p.points {
		line = append(line, coord(p.x(float64(pt.insns)))+" "+coord(p.y(pt.result.stage(stages.Total))))
	}
	fmt.Fprintf(w, `<path class="total" d="M%s"/>`+"\n", strings.Join(line, "L"))
	for _, pt := range p.points {
		total := pt.result.stage(stages.Total)
		fmt.Fprintf(w, `<circle class="dot" cx="%s" cy="%s" r="3.5"><title>%s instructions: %.2f ns each, %d passes</title></circle>`+"\n",
			coord(p.x(float64(pt.insns))), coord(p.y(total)), thousands(pt.insns), total, pt.result.Passes)
	}
}

// legend names the colours.
func (r *benchReport) legend(w io.Writer) {
	const y = plotHeight - 16
	x := float64(panelPlain)
	for _, s := range r.shown() {
		fmt.Fprintf(w, `<rect x="%s" y="%d" width="13" height="13" fill="%s"/>`+"\n", coord(x), y-11, stageColours[s])
		label(w, x+19, y, "", "start", s.String())
		x += 50 + 7*float64(len(s.String()))
	}
	fmt.Fprintf(w, `<path class="total" d="M%s %dh28"/>`+"\n", coord(x), y-4)
	label(w, x+35, y, "", "start", "all in one go")
}

func label(w io.Writer, x, y float64, class, anchor, text string) {
	if class != "" {
		class = ` class="` + class + `"`
	}
	fmt.Fprintf(w, `<text%s text-anchor="%s" x="%s" y="%s">%s</text>`+"\n", class, anchor, coord(x), coord(y), escape(text))
}

// coord writes a coordinate.
func coord(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

// thousands writes 1000000 as 1,000,000.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func escape(text string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text)) // a Builder takes everything
	return b.String()
}
