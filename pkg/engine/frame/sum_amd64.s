#include "textflag.h"

// func sumAVX2(p *byte, n int) uint64
//
// Adds n bytes, a multiple of 64, as little-endian words of 32 bits in lanes of 64 bits, where no carry is lost.
TEXT ·sumAVX2(SB), NOSPLIT, $0-24
	MOVQ  p+0(FP), SI
	MOVQ  n+8(FP), CX
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3
	VPXOR Y7, Y7, Y7

loop:
	VMOVDQU    (SI), Y4
	VMOVDQU    32(SI), Y5
	VPUNPCKLDQ Y7, Y4, Y8
	VPUNPCKHDQ Y7, Y4, Y9
	VPUNPCKLDQ Y7, Y5, Y10
	VPUNPCKHDQ Y7, Y5, Y11
	VPADDQ     Y8, Y0, Y0
	VPADDQ     Y9, Y1, Y1
	VPADDQ     Y10, Y2, Y2
	VPADDQ     Y11, Y3, Y3
	ADDQ       $64, SI
	SUBQ       $64, CX
	JNZ        loop

	VPADDQ       Y1, Y0, Y0
	VPADDQ       Y3, Y2, Y2
	VPADDQ       Y2, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPADDQ       X1, X0, X0
	VPSRLDQ      $8, X0, X1
	VPADDQ       X1, X0, X0
	VMOVQ        X0, AX
	MOVQ         AX, ret+16(FP)
	VZEROUPPER
	RET
