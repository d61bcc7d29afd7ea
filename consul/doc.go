// Package consul keeps weft's records, leases and registrations in Consul.
//
// A read has one of four outcomes, which are never confused: data; os.ErrNotExist (the key is absent while the
// sentinel <prefix>/cluster is readable); ErrUnreadable (Consul answered, but this data may not be believed: denied,
// filtered by ACLs, or the sentinel is missing); ErrUnavailable (no answer). An error is never an empty list.
package consul
