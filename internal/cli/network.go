package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/cli/spec"
	"berth/internal/client"
	"berth/internal/wire"
)

const networkCreateExample = `  berth network create backend
  berth network create --subnet 10.5.0.0/24 --gateway 10.5.0.1 --internal db`

type listFlags struct {
	filter         []string
	format         string
	quiet, noTrunc bool
}

func (f *listFlags) register(cmd *cobra.Command, filters string) {
	spec.List(cmd.Flags(), &f.filter, "filter", "f", "`NAME=VALUE` show those with it: "+filters)
	cmd.Flags().StringVar(&f.format, "format", "", "`FORMAT` json, 'table TEMPLATE' or a Go template")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "print names or ids alone")
	cmd.Args = exactly(0, "no arguments")
}

// prepare reads what the flags say and returns the engine's client.
func (f *listFlags) prepare(a *app) (*client.Client, client.Filters, *format.Template, error) {
	filters, err := parseFilters(f.filter)
	if err != nil {
		return nil, nil, nil, err
	}
	t, err := format.Parse(f.format)
	if err != nil {
		return nil, nil, nil, err
	}
	c, err := a.engine()
	return c, filters, t, err
}

func buildNetworkLs(a *app, cmd *cobra.Command) {
	f := &listFlags{}
	f.register(cmd, "name, id, driver, label, scope, type, dangling")
	cmd.Flags().BoolVar(&f.noTrunc, "no-trunc", false, "do not shorten anything")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, filters, t, err := f.prepare(a)
		if err != nil {
			return err
		}
		list, err := c.NetworkList(cmd.Context(), filters)
		if err != nil {
			return err
		}
		slices.SortFunc(list, func(x, y client.NetworkSummary) int { return strings.Compare(x.Name, y.Name) })
		rows := make([]format.Row, len(list))
		for i := range list {
			rows[i] = networkRow(&list[i], f.noTrunc)
			if f.quiet && f.format == "" {
				fmt.Fprintln(a.out, rows[i].Values["ID"])
			}
		}
		if f.quiet && f.format == "" {
			return nil
		}
		return a.listOf(f.noTrunc, "ID=NETWORK_ID Name=NAME Driver=DRIVER Scope=SCOPE",
			"IPv4=IPV4 IPv6=IPV6 Internal=INTERNAL Labels=LABELS CreatedAt=CREATED_AT").Write(a.out, t, rows)
	}
}

func networkRow(n *client.NetworkSummary, full bool) format.Row {
	id := n.ID
	if !full {
		id = format.ShortID(id)
	}
	ipv4 := n.EnableIPv4 == nil || *n.EnableIPv4
	return format.Row{Labels: n.Labels, Values: map[string]string{"ID": id, "Name": n.Name, "Driver": n.Driver, "Scope": n.Scope,
		"IPv4": strconv.FormatBool(ipv4), "IPv6": strconv.FormatBool(n.EnableIPv6), "Internal": strconv.FormatBool(n.Internal),
		"Labels": formatLabels(n.Labels), "CreatedAt": n.Created.String()}}
}

type networkFlags struct {
	client.NetworkCreate
	ipamDriver, configFrom                string
	ipv4, ipv6                            bool
	subnets, ranges, gateways, auxAddress []string
	options, ipamOptions, labels          []string
}

func buildNetworkCreate(a *app, cmd *cobra.Command) {
	f := &networkFlags{}
	fs := cmd.Flags()
	fs.StringVarP(&f.Driver, "driver", "d", "bridge", "`DRIVER` what makes it")
	fs.BoolVar(&f.Internal, "internal", false, "no way out of it")
	fs.BoolVar(&f.ipv6, "ipv6", false, "give IPv6 addresses out")
	fs.BoolVar(&f.ipv4, "ipv4", true, "give IPv4 addresses out")
	spec.List(fs, &f.subnets, "subnet", "", "`CIDR` addresses of it: 10.5.0.0/24")
	spec.List(fs, &f.ranges, "ip-range", "", "`CIDR` part of the subnet from which containers get theirs")
	spec.List(fs, &f.gateways, "gateway", "", "`ADDRESS` the host's own in the subnet")
	spec.List(fs, &f.auxAddress, "aux-address", "", "`NAME=ADDRESS` one that no container gets")
	spec.List(fs, &f.options, "opt", "o", "`NAME=VALUE` option of the driver")
	spec.List(fs, &f.labels, "label", "", "`NAME=VALUE` label")
	fs.StringVar(&f.ipamDriver, "ipam-driver", "default", "`DRIVER` what gives addresses out")
	spec.List(fs, &f.ipamOptions, "ipam-opt", "", "`NAME=VALUE` option of the address driver")
	fs.BoolVar(&f.Attachable, "attachable", false, "containers may be attached by hand")
	fs.BoolVar(&f.Ingress, "ingress", false, "for Swarm's routing mesh")
	fs.BoolVar(&f.ConfigOnly, "config-only", false, "settings for others, no network")
	fs.StringVar(&f.configFrom, "config-from", "", "`NETWORK` take its settings")
	fs.StringVar(&f.Scope, "scope", "", "`SCOPE` where it is known")
	cmd.Args = exactly(1, "a name")
	if a.completing {
		_ = cmd.RegisterFlagCompletionFunc("driver", cobra.FixedCompletions([]string{"bridge"}, cobra.ShellCompDirectiveNoFileComp))
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.Name = args[0]
		if err := f.fill(cmd); err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		id, warning, err := c.NetworkCreate(cmd.Context(), &f.NetworkCreate)
		if err != nil {
			return err
		}
		if warning != "" {
			a.warn("%s", warning)
		}
		fmt.Fprintln(a.out, id)
		return nil
	}
}

// fill makes a request of the flags.
func (f *networkFlags) fill(cmd *cobra.Command) (err error) {
	if cmd.Flags().Changed("ipv4") {
		f.EnableIPv4 = &f.ipv4
	}
	if cmd.Flags().Changed("ipv6") {
		f.EnableIPv6 = &f.ipv6
	}
	if f.configFrom != "" {
		f.ConfigFrom = &client.ConfigReference{Network: f.configFrom}
	}
	if f.Options, err = spec.Pairs("opt", f.options); err != nil {
		return err
	}
	if f.Labels, err = spec.Pairs("label", f.labels); err != nil {
		return err
	}
	f.IPAM = &client.IPAM{Driver: f.ipamDriver}
	if f.IPAM.Options, err = spec.Pairs("ipam-opt", f.ipamOptions); err != nil {
		return err
	}
	f.IPAM.Config, err = f.pools()
	return err
}

// pools sorts ranges, gateways and reserved addresses to the subnets that they
// are in.
func (f *networkFlags) pools() ([]client.IPAMPool, error) {
	if len(f.subnets) == 0 {
		if len(f.ranges)+len(f.gateways)+len(f.auxAddress) > 0 {
			return nil, wrong("--ip-range, --gateway and --aux-address need a --subnet that they are in")
		}
		return nil, nil
	}
	pools := make([]client.IPAMPool, len(f.subnets))
	prefixes := make([]netip.Prefix, len(f.subnets))
	for i, text := range f.subnets {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, wrong("--subnet %q is not a subnet such as 10.5.0.0/24", text)
		}
		for j := range i {
			if prefixes[j].Overlaps(p) {
				return nil, wrong("the subnets %s and %s overlap", f.subnets[j], text)
			}
		}
		pools[i].Subnet, prefixes[i] = text, p
	}
	place := func(flag, text string, at netip.Addr) (*client.IPAMPool, error) {
		for i := range prefixes {
			if prefixes[i].Contains(at) {
				return &pools[i], nil
			}
		}
		return nil, wrong("--%s %s is in none of the subnets", flag, text)
	}
	for _, text := range f.ranges {
		r, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, wrong("--ip-range %q is not a range such as 10.5.0.128/25", text)
		}
		pool, err := place("ip-range", text, r.Addr())
		if err != nil {
			return nil, err
		}
		pool.IPRange = text
	}
	for _, text := range f.gateways {
		at, err := netip.ParseAddr(text)
		if err != nil {
			return nil, wrong("--gateway %q is not an address", text)
		}
		pool, err := place("gateway", text, at)
		if err != nil {
			return nil, err
		}
		pool.Gateway = text
	}
	return pools, f.reserve(place)
}

func (f *networkFlags) reserve(place func(flag, text string, at netip.Addr) (*client.IPAMPool, error)) error {
	for _, text := range f.auxAddress {
		name, value, ok := strings.Cut(text, "=")
		at, err := netip.ParseAddr(value)
		if !ok || err != nil {
			return wrong("--aux-address %q is not NAME=ADDRESS", text)
		}
		pool, err := place("aux-address", text, at)
		if err != nil {
			return err
		}
		if pool.AuxAddress == nil {
			pool.AuxAddress = map[string]string{}
		}
		pool.AuxAddress[name] = value
	}
	return nil
}

func buildNetworkRm(a *app, cmd *cobra.Command) {
	var force bool
	var f planFlags
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not mind those that are not there")
	f.register(cmd)
	cmd.Args = atLeast(1, "a network")
	cmd.ValidArgsFunction = a.completeNetworks(false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if planned, err := f.wanted(); planned || err != nil {
			return a.planRemoval(cmd, &f, wire.PlanRemoval{Kind: wire.PlanNetworks, Refs: args, Force: force}, networkNamesOf, err)
		}
		return a.eachOf(cmd, args, networkNamesOf, func(ctx context.Context, c *client.Client, ref string) error {
			err := c.NetworkRemove(ctx, ref)
			if isMissing(err) && (force || isSecond(ctx)) {
				return nil
			}
			return err
		})
	}
}

func buildNetworkInspect(a *app, cmd *cobra.Command) {
	var layout string
	var verbose bool
	cmd.Flags().StringVarP(&layout, "format", "f", "", "`FORMAT` json or a Go template")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "more about what is attached")
	cmd.Args = atLeast(1, "a network")
	cmd.ValidArgsFunction = a.completeNetworks(false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.inspectAll(cmd, layout, args, func(c *client.Client) inspector {
			return func(ctx context.Context, ref string) (json.RawMessage, error) {
				return c.NetworkInspectScope(ctx, ref, "", verbose)
			}
		})
	}
}

// inspectAll prints what one kind of look-up finds.
func (a *app) inspectAll(cmd *cobra.Command, layout string, refs []string, look func(*client.Client) inspector) error {
	t, err := format.Parse(layout)
	if err != nil {
		return err
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	return a.inspect(cmd.Context(), t, []inspector{look(c)}, refs)
}

func buildNetworkConnect(a *app, cmd *cobra.Command) {
	var e client.EndpointSettings
	var ip, ip6 string
	var options, local []string
	fs := cmd.Flags()
	spec.List(fs, &e.Aliases, "alias", "", "`NAME` another name of the container there")
	fs.StringVar(&ip, "ip", "", "`ADDRESS` IPv4 address")
	fs.StringVar(&ip6, "ip6", "", "`ADDRESS` IPv6 address")
	spec.List(fs, &e.Links, "link", "", "`CONTAINER[:NAME]` another container by a name of its own")
	spec.List(fs, &local, "link-local-ip", "", "`ADDRESS` link-local address")
	spec.List(fs, &options, "driver-opt", "", "`NAME=VALUE` option of the driver")
	fs.IntVar(&e.GwPriority, "gw-priority", 0, "`N` the network with the highest one is the way out")
	cmd.Args = exactly(2, "a network and a container")
	cmd.ValidArgsFunction = a.completeNetworks(true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if e.DriverOpts, err = spec.Pairs("driver-opt", options); err != nil {
			return err
		}
		if ip != "" || ip6 != "" || len(local) > 0 {
			e.IPAMConfig = &client.IPAMConfig{IPv4Address: ip, IPv6Address: ip6, LinkLocalIPs: local}
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		return c.NetworkConnect(cmd.Context(), args[0], args[1], &e)
	}
}

func buildNetworkDisconnect(a *app, cmd *cobra.Command) {
	var force bool
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also when the container is gone")
	cmd.Args = exactly(2, "a network and a container")
	cmd.ValidArgsFunction = a.completeNetworks(true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return c.NetworkDisconnect(cmd.Context(), args[0], args[1], force)
	}
}
