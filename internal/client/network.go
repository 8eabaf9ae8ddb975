package client

import (
	"context"
	"encoding/json"
	"net/url"
	"time"
)

// NetworkSummary is one network in a list.
type NetworkSummary struct {
	Name       string
	ID         string `json:"Id"`
	Created    time.Time
	Scope      string
	Driver     string
	EnableIPv4 *bool
	EnableIPv6 bool
	Internal   bool
	Labels     map[string]string
}

// NetworkCreate is the body of a network's creation.
type NetworkCreate struct {
	Name       string
	Driver     string            `json:",omitempty"`
	Scope      string            `json:",omitempty"`
	EnableIPv4 *bool             `json:",omitempty"`
	EnableIPv6 *bool             `json:",omitempty"`
	IPAM       *IPAM             `json:",omitempty"`
	Internal   bool              `json:",omitempty"`
	Attachable bool              `json:",omitempty"`
	Ingress    bool              `json:",omitempty"`
	ConfigOnly bool              `json:",omitempty"`
	ConfigFrom *ConfigReference  `json:",omitempty"`
	Options    map[string]string `json:",omitempty"`
	Labels     map[string]string `json:",omitempty"`
}

// ConfigReference names the network that another takes its settings from.
type ConfigReference struct{ Network string }

// IPAM says how addresses are given out.
type IPAM struct {
	Driver  string            `json:",omitempty"`
	Options map[string]string `json:",omitempty"`
	Config  []IPAMPool        `json:",omitempty"`
}

// IPAMPool is a range of addresses.
type IPAMPool struct {
	Subnet     string            `json:",omitempty"`
	IPRange    string            `json:",omitempty"`
	Gateway    string            `json:",omitempty"`
	AuxAddress map[string]string `json:"AuxiliaryAddresses,omitempty"`
}

// NetworkList lists networks.
func (c *Client) NetworkList(ctx context.Context, filters Filters) ([]NetworkSummary, error) {
	q := url.Values{}
	filters.query(q)
	return fetch[[]NetworkSummary](ctx, c, "GET", "/networks", q, nil)
}

// NetworkInspect returns everything about a network as the engine wrote it.
func (c *Client) NetworkInspect(ctx context.Context, ref string) (json.RawMessage, error) {
	return c.NetworkInspectScope(ctx, ref, "", false)
}

// NetworkInspectScope is NetworkInspect among the networks of a scope.
func (c *Client) NetworkInspectScope(ctx context.Context, ref, scope string, verbose bool) (json.RawMessage, error) {
	q := url.Values{}
	setText(q, "scope", scope)
	setFlag(q, "verbose", verbose)
	return fetch[json.RawMessage](ctx, c, "GET", "/networks/"+segment(ref), q, nil)
}

// NetworkCreate makes a network and returns its id and the engine's warning.
func (c *Client) NetworkCreate(ctx context.Context, req *NetworkCreate) (id, warning string, err error) {
	out, err := fetch[struct {
		ID      string `json:"Id"`
		Warning string
	}](ctx, c, "POST", "/networks/create", nil, req)
	return out.ID, out.Warning, err
}

// NetworkRemove removes a network.
func (c *Client) NetworkRemove(ctx context.Context, ref string) error {
	return c.call(ctx, "DELETE", "/networks/"+segment(ref), nil, nil, nil)
}

// NetworkConnect attaches a container to a network.
func (c *Client) NetworkConnect(ctx context.Context, ref, container string, settings *EndpointSettings) error {
	body := struct {
		Container      string
		EndpointConfig *EndpointSettings `json:",omitempty"`
	}{container, settings}
	return c.call(ctx, "POST", "/networks/"+segment(ref)+"/connect", nil, body, nil)
}

// NetworkDisconnect detaches a container from a network.
func (c *Client) NetworkDisconnect(ctx context.Context, ref, container string, force bool) error {
	body := struct {
		Container string
		Force     bool
	}{container, force}
	return c.call(ctx, "POST", "/networks/"+segment(ref)+"/disconnect", nil, body, nil)
}

// Volume is one volume in a list.
type Volume struct {
	Name       string
	Driver     string
	Mountpoint string
	CreatedAt  string
	Labels     map[string]string
	Scope      string
	UsageData  *struct {
		Size     int64 // bytes, -1 when not known
		RefCount int64
	}
}

// VolumeCreate is the body of a volume's creation.
type VolumeCreate struct {
	Name       string            `json:",omitempty"`
	Driver     string            `json:",omitempty"`
	DriverOpts map[string]string `json:",omitempty"`
	Labels     map[string]string `json:",omitempty"`
}

// VolumeList lists volumes and returns the engine's warnings.
func (c *Client) VolumeList(ctx context.Context, filters Filters) ([]Volume, []string, error) {
	q := url.Values{}
	filters.query(q)
	out, err := fetch[struct {
		Volumes  []Volume
		Warnings []string
	}](ctx, c, "GET", "/volumes", q, nil)
	return out.Volumes, out.Warnings, err
}

// VolumeInspect returns everything about a volume as the engine wrote it.
func (c *Client) VolumeInspect(ctx context.Context, name string) (json.RawMessage, error) {
	return fetch[json.RawMessage](ctx, c, "GET", "/volumes/"+segment(name), nil, nil)
}

// VolumeCreate makes a volume.
func (c *Client) VolumeCreate(ctx context.Context, req *VolumeCreate) (Volume, error) {
	return fetch[Volume](ctx, c, "POST", "/volumes/create", nil, req)
}

// VolumeRemove removes a volume.
func (c *Client) VolumeRemove(ctx context.Context, name string, force bool) error {
	q := url.Values{}
	setFlag(q, "force", force)
	return c.call(ctx, "DELETE", "/volumes/"+segment(name), q, nil, nil)
}
