package frame

import "encoding/binary"

// VNetLen is the size in bytes of struct virtio_net_hdr (linux/virtio_net.h), which precedes every frame on a TAP opened
// with IFF_VNET_HDR.
const VNetLen = 10

// Values of VNet (linux/virtio_net.h).
const (
	NeedsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	DataValid = 2 // VIRTIO_NET_HDR_F_DATA_VALID

	GSONone  = 0
	GSOTCPv4 = 1
	GSOTCPv6 = 4
	GSOUDPL4 = 5
	GSOECN   = 0x80
)

// VNet is a virtio_net_hdr: what is still to be done to a frame.
type VNet struct {
	Flags, GSOType                       uint8
	HdrLen, GSOSize, CsumStart, CsumOffs uint16
}

// ParseVNet reads the first VNetLen bytes of b.
func ParseVNet(b []byte) VNet {
	n := binary.NativeEndian
	return VNet{b[0], b[1], n.Uint16(b[2:]), n.Uint16(b[4:]), n.Uint16(b[6:]), n.Uint16(b[8:10])}
}

// Put writes the header into the first VNetLen bytes of b.
func (v VNet) Put(b []byte) {
	n := binary.NativeEndian
	b[0], b[1] = v.Flags, v.GSOType
	n.PutUint16(b[2:], v.HdrLen)
	n.PutUint16(b[4:], v.GSOSize)
	n.PutUint16(b[6:], v.CsumStart)
	n.PutUint16(b[8:10], v.CsumOffs)
}

// Complete computes the transport checksum of a frame that is not to be cut but lacks it.
func (v VNet) Complete(frame []byte) error {
	start, at := int(v.CsumStart), int(v.CsumStart)+int(v.CsumOffs)
	if at+2 > len(frame) {
		return ErrMalformed
	}
	putSum(frame[at:], sum(frame[start:], 0), v.CsumOffs == udpCsum)
	return nil
}
