package overlay

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/keys"
)

func goodNetwork() Network {
	return Network{
		ID: "0123456789ab", Name: "blue", VNI: MinVNI, Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")},
		IPRange: netip.MustParsePrefix("10.0.0.128/25"), Gateway: netip.MustParseAddr("10.0.0.1"), Encrypted: true, MTU: 1370,
		Labels: map[string]string{"org.example.team": "blue"}, Signer: "n1", Revision: 1,
	}
}

func goodNode() Node {
	return Node{
		Name: "n1", Identity: keys.IdentityKey{1}, WireGuard: []WireGuardKey{{Generation: 1, PublicKey: keys.PublicKey{1}, Port: 51820},
			{Generation: 2, PublicKey: keys.PublicKey{2}, Port: 51821}},
		Underlay:    []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		UnderlayMTU: 1500, VTEP: netip.MustParseAddr("100.64.0.1"), VXLANPort: 4789, Datacenter: "dc1", Version: "0.1", Backend: "kernel",
		Revision: 1,
	}
}

func goodSet() EndpointSet {
	r := MAC{2, 1, 1, 1, 1, 1}
	return EndpointSet{
		Node: "n1", Network: "blue", NetworkID: "0123456789ab", Router: Router{r, r.LinkLocal()}, Revision: 1,
		Endpoints: []Endpoint{
			{ID: "e1", Name: "web-1", Address: netip.MustParseAddr("10.0.0.2"), MAC: MAC{2, 0, 0, 0, 0, 1},
				Services: []string{"web"}, Aliases: []string{"www"}, Ports: []Port{{"http", 80, "tcp"}, {"http", 80, "udp"}}},
			{ID: "e2", Name: "web-2", Address: netip.MustParseAddr("10.0.0.3"), MAC: MAC{2, 0, 0, 0, 0, 2}},
		},
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestNetworkValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Network)
		want   string
	}{
		"good":                 {func(n *Network) {}, ""},
		"good tombstone":       {func(n *Network) { n.Deleted = time.Unix(1, 0) }, ""},
		"good, no range":       {func(n *Network) { n.IPRange = netip.Prefix{} }, ""},
		"good, last VNI":       {func(n *Network) { n.VNI = MaxVNI }, ""},
		"zero":                 {func(n *Network) { *n = Network{} }, "name is empty"},
		"no id":                {func(n *Network) { n.ID = "" }, "network id"},
		"upper-case id":        {func(n *Network) { n.ID = "0123456789AB" }, "network id"},
		"id is a path":         {func(n *Network) { n.ID = "../../../tmp" }, "network id"},
		"name is a path":       {func(n *Network) { n.Name = "../x" }, "not valid"},
		"name with escape":     {func(n *Network) { n.Name = "a\x1b[2J\n" }, "not valid"},
		"upper-case name":      {func(n *Network) { n.Name = "Blue" }, "lower-case"},
		"reserved name":        {func(n *Network) { n.Name = "host" }, "reserved"},
		"Swarm's VNI":          {func(n *Network) { n.VNI = 4097 }, "vni 4097"},
		"VNI of 25 bits":       {func(n *Network) { n.VNI = MaxVNI + 1 }, "vni"},
		"no VNI":               {func(n *Network) { n.VNI = 0 }, "vni"},
		"no subnet":            {func(n *Network) { n.Subnets = nil }, "0 subnets"},
		"two subnets":          {func(n *Network) { n.Subnets = append(n.Subnets, n.Subnets[0]) }, "2 subnets"},
		"zero subnet":          {func(n *Network) { n.Subnets[0] = netip.Prefix{} }, "subnet is missing"},
		"host bits":            {func(n *Network) { n.Subnets[0] = netip.MustParsePrefix("10.0.0.1/24") }, "host bits"},
		"everything":           {func(n *Network) { n.Subnets[0] = netip.MustParsePrefix("0.0.0.0/0") }, "too large"},
		"loopback":             {func(n *Network) { n.Subnets[0] = netip.MustParsePrefix("127.0.0.0/8") }, "loopback"},
		"IPv6":                 {func(n *Network) { n.Subnets[0] = netip.MustParsePrefix("fd00::/64") }, "not IPv4"},
		"4in6 subnet":          {func(n *Network) { n.Subnets[0] = netip.PrefixFrom(addr("::ffff:10.0.0.0"), 24) }, "not IPv4"},
		"no gateway":           {func(n *Network) { n.Gateway = netip.Addr{} }, "gateway is missing"},
		"gateway outside":      {func(n *Network) { n.Gateway = addr("10.0.1.1") }, "outside"},
		"gateway is network":   {func(n *Network) { n.Gateway = addr("10.0.0.0") }, "network address"},
		"gateway is broadcast": {func(n *Network) { n.Gateway = addr("10.0.0.255") }, "broadcast"},
		"gateway 4in6":         {func(n *Network) { n.Gateway = addr("::ffff:10.0.0.1") }, "outside"},
		"range outside":        {func(n *Network) { n.IPRange = netip.MustParsePrefix("10.0.1.0/25") }, "not inside"},
		"range larger":         {func(n *Network) { n.IPRange = netip.MustParsePrefix("10.0.0.0/23") }, "not inside"},
		"range host bits":      {func(n *Network) { n.IPRange = netip.MustParsePrefix("10.0.0.129/25") }, "host bits"},
		"range bad":            {func(n *Network) { n.IPRange = netip.PrefixFrom(addr("10.0.0.0"), 64) }, "ip range"},
		"MTU low":              {func(n *Network) { n.MTU = 575 }, "mtu"},
		"MTU high":             {func(n *Network) { n.MTU = 65536 }, "mtu"},
		"no signer":            {func(n *Network) { n.Signer = "" }, "signer"},
		"signer is a path":     {func(n *Network) { n.Signer = "a/../b" }, "signer"},
		"no revision":          {func(n *Network) { n.Revision = 0 }, "revision"},
		"label without key":    {func(n *Network) { n.Labels[""] = "x" }, "empty key"},
		"label with escape":    {func(n *Network) { n.Labels["x"] = "\x1b]0;\a" }, "control"},
		"label key with break": {func(n *Network) { n.Labels["x\n"] = "" }, "control"},
		"label too long":       {func(n *Network) { n.Labels["x"] = strings.Repeat("x", 1025) }, "longer"},
		"too many labels": {func(n *Network) {
			for i := range 300 {
				n.Labels[strings.Repeat("x", i+1)] = ""
			}
		}, "labels"},
	} {
		t.Run(name, func(t *testing.T) {
			n := goodNetwork()
			tc.change(&n)
			check(t, n.Validate(), tc.want)
		})
	}
}

func TestNodeValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Node)
		want   string
	}{
		"good":                    {func(n *Node) {}, ""},
		"good goodbye":            {func(n *Node) { n.Left = time.Unix(1, 0) }, ""},
		"good, one key":           {func(n *Node) { n.WireGuard = n.WireGuard[1:] }, ""},
		"good, link-local IPv4":   {func(n *Node) { n.Underlay[0] = addr("169.254.1.1") }, ""},
		"zero":                    {func(n *Node) { *n = Node{} }, "name is empty"},
		"upper-case name":         {func(n *Node) { n.Name = "N1" }, "lower-case"},
		"no identity":             {func(n *Node) { n.Identity = keys.IdentityKey{} }, "identity"},
		"no WireGuard":            {func(n *Node) { n.WireGuard = nil }, "0 WireGuard keys"},
		"many keys":               {func(n *Node) { n.WireGuard = make([]WireGuardKey, 9) }, "9 WireGuard keys"},
		"generation zero":         {func(n *Node) { n.WireGuard[0].Generation = 0 }, "generation 0"},
		"generation negative":     {func(n *Node) { n.WireGuard[0].Generation = -1 }, "generation -1"},
		"generation twice":        {func(n *Node) { n.WireGuard[1].Generation = 1 }, "newest last"},
		"generations backwards":   {func(n *Node) { n.WireGuard[0].Generation = 3 }, "newest last"},
		"zero key":                {func(n *Node) { n.WireGuard[1].PublicKey = keys.PublicKey{} }, "generation 2 is zero"},
		"no port":                 {func(n *Node) { n.WireGuard[0].Port = 0 }, "port"},
		"same key":                {func(n *Node) { n.WireGuard[1].PublicKey = n.WireGuard[0].PublicKey }, "shares"},
		"same port":               {func(n *Node) { n.WireGuard[1].Port = n.WireGuard[0].Port }, "shares"},
		"no underlay":             {func(n *Node) { n.Underlay = nil }, "0 underlay"},
		"much underlay":           {func(n *Node) { n.Underlay = make([]netip.Addr, 17) }, "17 underlay"},
		"underlay zero":           {func(n *Node) { n.Underlay[0] = netip.Addr{} }, "missing"},
		"underlay twice":          {func(n *Node) { n.Underlay[1] = n.Underlay[0] }, "twice"},
		"underlay loopback":       {func(n *Node) { n.Underlay[0] = addr("127.0.0.2") }, "not the address of a host"},
		"underlay loopback 6":     {func(n *Node) { n.Underlay[0] = addr("::1") }, "not the address of a host"},
		"underlay unspecified":    {func(n *Node) { n.Underlay[0] = addr("0.0.0.0") }, "not the address of a host"},
		"underlay multicast":      {func(n *Node) { n.Underlay[0] = addr("239.1.1.1") }, "not the address of a host"},
		"underlay multicast 6":    {func(n *Node) { n.Underlay[0] = addr("ff02::1") }, "not the address of a host"},
		"underlay broadcast":      {func(n *Node) { n.Underlay[0] = addr("255.255.255.255") }, "not the address of a host"},
		"underlay 4in6":           {func(n *Node) { n.Underlay[0] = addr("::ffff:192.0.2.1") }, "does not work"},
		"underlay 4in6 loopback":  {func(n *Node) { n.Underlay[0] = addr("::ffff:127.0.0.1") }, "underlay address"},
		"underlay link-local 6":   {func(n *Node) { n.Underlay[0] = addr("fe80::1") }, "does not work"},
		"underlay with a zone":    {func(n *Node) { n.Underlay[0] = addr("fe80::1%eth0") }, "does not work"},
		"underlay MTU low":        {func(n *Node) { n.UnderlayMTU = 1279 }, "underlay mtu"},
		"underlay MTU high":       {func(n *Node) { n.UnderlayMTU = 65536 }, "underlay mtu"},
		"no VTEP":                 {func(n *Node) { n.VTEP = netip.Addr{} }, "vtep"},
		"VTEP IPv6":               {func(n *Node) { n.VTEP = addr("fd00::1") }, "vtep"},
		"VTEP 4in6":               {func(n *Node) { n.VTEP = addr("::ffff:100.64.0.1") }, "vtep"},
		"VTEP loopback":           {func(n *Node) { n.VTEP = addr("127.0.0.1") }, "vtep"},
		"VTEP unspecified":        {func(n *Node) { n.VTEP = addr("0.0.0.0") }, "vtep"},
		"VTEP multicast":          {func(n *Node) { n.VTEP = addr("224.0.0.1") }, "vtep"},
		"VTEP broadcast":          {func(n *Node) { n.VTEP = addr("255.255.255.255") }, "vtep"},
		"no VXLAN port":           {func(n *Node) { n.VXLANPort = 0 }, "vxlan port"},
		"datacenter with escape":  {func(n *Node) { n.Datacenter = "\x1b[2J" }, "control"},
		"version with line break": {func(n *Node) { n.Version = "1\n2" }, "control"},
		"backend long":            {func(n *Node) { n.Backend = strings.Repeat("x", 129) }, "longer"},
		"no revision":             {func(n *Node) { n.Revision = 0 }, "revision"},
	} {
		t.Run(name, func(t *testing.T) {
			n := goodNode()
			tc.change(&n)
			check(t, n.Validate(), tc.want)
		})
	}
}

func TestEndpointSetValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*EndpointSet)
		want   string
	}{
		"good":                {func(s *EndpointSet) {}, ""},
		"good, empty":         {func(s *EndpointSet) { s.Endpoints = nil }, ""},
		"good, no router":     {func(s *EndpointSet) { s.Endpoints, s.Router = nil, Router{} }, ""},
		"zero":                {func(s *EndpointSet) { *s = EndpointSet{} }, "name is empty"},
		"node is a path":      {func(s *EndpointSet) { s.Node = "a/b" }, "not valid"},
		"network upper-case":  {func(s *EndpointSet) { s.Network = "Blue" }, "lower-case"},
		"no network id":       {func(s *EndpointSet) { s.NetworkID = "" }, "network id"},
		"no revision":         {func(s *EndpointSet) { s.Revision = 0 }, "revision"},
		"router missing":      {func(s *EndpointSet) { s.Router = Router{} }, "router: MAC address is zero"},
		"router multicast":    {func(s *EndpointSet) { s.Router.MAC[0] = 3 }, "multicast"},
		"router address odd":  {func(s *EndpointSet) { s.Router.Address = addr("fe80::1") }, "belongs to its MAC"},
		"router address none": {func(s *EndpointSet) { s.Router.Address = netip.Addr{} }, "belongs to its MAC"},
		"router address zone": {func(s *EndpointSet) { s.Router.Address = s.Router.Address.WithZone("x") }, "belongs to its MAC"},
		"router alone bad":    {func(s *EndpointSet) { s.Endpoints, s.Router.MAC = nil, MAC{} }, "router"},
		"router's MAC taken":  {func(s *EndpointSet) { s.Endpoints[0].MAC = s.Router.MAC }, "twice"},
		"id twice":            {func(s *EndpointSet) { s.Endpoints[1].ID = "e1" }, "twice"},
		"address twice":       {func(s *EndpointSet) { s.Endpoints[1].Address = s.Endpoints[0].Address }, "twice"},
		"MAC twice":           {func(s *EndpointSet) { s.Endpoints[1].MAC = s.Endpoints[0].MAC }, "twice"},
		"id bad":              {func(s *EndpointSet) { s.Endpoints[0].ID = "a/b" }, "endpoint id"},
		"id with escape":      {func(s *EndpointSet) { s.Endpoints[0].ID = "\x1b\n" }, "endpoint id"},
		"no name":             {func(s *EndpointSet) { s.Endpoints[0].Name = "" }, "name is empty"},
		"name upper-case":     {func(s *EndpointSet) { s.Endpoints[0].Name = "Web" }, "lower-case"},
		"no address":          {func(s *EndpointSet) { s.Endpoints[0].Address = netip.Addr{} }, "address is missing"},
		"address IPv6":        {func(s *EndpointSet) { s.Endpoints[0].Address = addr("fd00::2") }, "not IPv4"},
		"address 4in6":        {func(s *EndpointSet) { s.Endpoints[0].Address = addr("::ffff:10.0.0.2") }, "not IPv4"},
		"address loopback":    {func(s *EndpointSet) { s.Endpoints[0].Address = addr("127.0.0.1") }, "loopback"},
		"address multicast":   {func(s *EndpointSet) { s.Endpoints[0].Address = addr("224.0.0.1") }, "multicast"},
		"MAC zero":            {func(s *EndpointSet) { s.Endpoints[0].MAC = MAC{} }, "MAC address is zero"},
		"MAC broadcast":       {func(s *EndpointSet) { s.Endpoints[0].MAC = MAC{255, 255, 255, 255, 255, 255} }, "multicast"},
		"service bad":         {func(s *EndpointSet) { s.Endpoints[0].Services[0] = "a b" }, "service name"},
		"service reserved":    {func(s *EndpointSet) { s.Endpoints[0].Services[0] = "tasks" }, "reserved"},
		"alias bad":           {func(s *EndpointSet) { s.Endpoints[0].Aliases[0] = "*" }, "alias name"},
		"many aliases":        {func(s *EndpointSet) { s.Endpoints[0].Aliases = make([]string, 65) }, "more than 64"},
		"port unnamed":        {func(s *EndpointSet) { s.Endpoints[0].Ports[0].Name = "" }, "port name"},
		"port zero":           {func(s *EndpointSet) { s.Endpoints[0].Ports[0].Port = 0 }, "port http is 0"},
		"port sctp":           {func(s *EndpointSet) { s.Endpoints[0].Ports[0].Proto = "sctp" }, "neither"},
		"port TCP":            {func(s *EndpointSet) { s.Endpoints[0].Ports[0].Proto = "TCP" }, "neither"},
		"port twice":          {func(s *EndpointSet) { s.Endpoints[0].Ports[1].Proto = "tcp" }, "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			s := goodSet()
			tc.change(&s)
			check(t, s.Validate(), tc.want)
		})
	}
}

func TestEndpointSetValidateOn(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*EndpointSet)
		want   string
	}{
		"good":            {func(s *EndpointSet) {}, ""},
		"another name":    {func(s *EndpointSet) { s.Network = "green" }, "speaks of"},
		"an older id":     {func(s *EndpointSet) { s.NetworkID = "ffffffffffff" }, "speaks of network id ffffffffffff"},
		"outside":         {func(s *EndpointSet) { s.Endpoints[1].Address = addr("10.0.1.2") }, "outside"},
		"gateway":         {func(s *EndpointSet) { s.Endpoints[1].Address = addr("10.0.0.1") }, "gateway's"},
		"network address": {func(s *EndpointSet) { s.Endpoints[1].Address = addr("10.0.0.0") }, "network address"},
		"broadcast":       {func(s *EndpointSet) { s.Endpoints[1].Address = addr("10.0.0.255") }, "broadcast"},
	} {
		t.Run(name, func(t *testing.T) {
			s := goodSet()
			tc.change(&s)
			check(t, s.ValidateOn(goodNetwork()), tc.want)
		})
	}
}

// FuzzRecords: no JSON makes validation panic, and what is valid stays so through JSON.
func FuzzRecords(f *testing.F) {
	for _, rec := range []any{goodNetwork(), goodNode(), goodSet()} {
		b, err := json.Marshal(rec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"subnets":["10.0.0.0/24"],"gateway":"::1%x","router":{"mac":"ff:ff:ff:ff:ff:ff"},"endpoints":[{}],"wireguard":[{}],"underlay":["", ""]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzRecord[Network](t, data)
		fuzzRecord[Node](t, data)
		fuzzRecord[EndpointSet](t, data)
		var s EndpointSet
		if json.Unmarshal(data, &s) == nil {
			_ = s.ValidateOn(goodNetwork())
			_ = s.ValidateOn(Network{Name: s.Network, ID: s.NetworkID})
		}
	})
}

func fuzzRecord[R interface{ Validate() error }](t *testing.T, data []byte) {
	t.Helper()
	var rec, again R
	if json.Unmarshal(data, &rec) != nil {
		return
	}
	if err := rec.Validate(); err != nil {
		if strings.ContainsAny(err.Error(), "\n\x1b\x00") {
			t.Errorf("error is not one plain line: %q", err)
		}
		return
	}
	b, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &again); err != nil || again.Validate() != nil {
		t.Errorf("valid, but not again after JSON: %v, %v\n%s\n%s", err, again.Validate(), data, b)
	}
}
