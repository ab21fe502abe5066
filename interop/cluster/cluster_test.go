package cluster

import (
	"context"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestCluster is one run of everything: the servers take longest, and the policies that come last would be in the way
// of the attackers.
func TestCluster(t *testing.T) {
	s := start(t)
	for _, file := range []string{"namespace.yaml", "config.yaml", "rbac.yaml"} {
		s.install(t, file)
	}
	s.definitions(t)
	for _, name := range []string{"shop", "other"} {
		s.namespace(t, name)
	}
	labels := map[string]string{"topology.kubernetes.io/zone": zone}
	_, err := s.client.CoreV1().Nodes().Create(context.Background(), &core.Node{ObjectMeta: meta.ObjectMeta{Name: node, Labels: labels}}, meta.CreateOptions{})
	must(t, err)
	s.configure(t, map[string]any{"mode": "on", "queue-proxy-images": "registry.example/other " + image})
	s.startController(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the controller wrote:\n%s", s.controller.log)
		}
	})
	t.Run("attackers", func(t *testing.T) { attackers(t, s) })
	t.Run("modes", func(t *testing.T) { modes(t, s) })
	t.Run("rotation", func(t *testing.T) { rotation(t, s) })
	t.Run("guards", func(t *testing.T) { guards(t, s) })
	t.Run("queue-proxy", func(t *testing.T) { queueProxy(t, s) })
	t.Run("rights", func(t *testing.T) { rights(t, s) })
	t.Run("policies", func(t *testing.T) { policies(t, s) })
}
