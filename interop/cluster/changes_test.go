package cluster

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	cost    = "controller.kubernetes.io/pod-deletion-cost"
	evict   = "cluster-autoscaler.kubernetes.io/safe-to-evict"
	disrupt = "karpenter.sh/do-not-disrupt"
)

func (s *servers) configure(t *testing.T, data map[string]any) {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"data": data})
	must(t, err)
	_, err = s.client.CoreV1().ConfigMaps(system).Patch(context.Background(), "zipline-config", types.MergePatchType, patch, meta.PatchOptions{})
	must(t, err)
}

func (s *servers) annotate(t *testing.T, object *core.Pod, manager string, annotations map[string]any) {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	must(t, err)
	_, err = s.client.CoreV1().Pods(object.Namespace).Patch(context.Background(), object.Name, types.MergePatchType, patch, meta.PatchOptions{FieldManager: manager})
	must(t, err)
}

// modes switches modes while a queue-proxy waits for just that.
func modes(t *testing.T, s *servers) {
	uid := s.revision(t, "shop", "modes-00001")
	token := s.tokenOf(t, s.create(t, pod("shop", "modes-1", "modes-00001", uid, nil)), audience)
	lowered := s.tokenOf(t, s.create(t, pod("shop", "modes-2", "modes-00001", uid, func(p *core.Pod) {
		p.Annotations = map[string]string{"zipline.internal/mode": "receive"}
	})), audience)
	s.configure(t, map[string]any{"mode": "on"})
	eventually(t, "mode on", func() bool { return s.mode(t, token, "").Mode == "on" })
	if mode := s.mode(t, lowered, "").Mode; mode != "receive" {
		t.Errorf("the Service's annotation lowers the mode, but it is %s", mode)
	}
	// Each change is made while a question waits, and its answer is timed.
	change := func(name, expected string, apply func()) {
		t.Helper()
		now := s.mode(t, token, "")
		answered := make(chan modeAnswer, 1)
		go func() { answered <- s.mode(t, token, "?revision="+jsonNumber(now.Revision)) }()
		eventually(t, "the question waits", func() bool { return s.metric(t, "zipline_controller_waiting 1") })
		began := time.Now()
		apply()
		answer := <-answered
		t.Logf("%s: seen after %.3f s", name, time.Since(began).Seconds())
		if answer.Mode != expected || answer.Revision == now.Revision {
			t.Errorf("%s: %+v, before %+v, expected %s", name, answer, now, expected)
		}
	}
	namespace := func(mode any) {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{"zipline.internal/mode": mode}}})
		must(t, err)
		_, err = s.client.CoreV1().Namespaces().Patch(context.Background(), "shop", types.MergePatchType, patch, meta.PatchOptions{})
		must(t, err)
	}
	change("cluster off", "off", func() { s.configure(t, map[string]any{"mode": "off"}) })
	change("cluster on", "on", func() { s.configure(t, map[string]any{"mode": "on"}) })
	change("namespace receive", "receive", func() { namespace("receive") })
	change("a typing error is off", "off", func() { namespace("recieve") })
	change("namespace without a word", "on", func() { namespace(nil) })
	change("cluster with a typing error is off", "off", func() { s.configure(t, map[string]any{"mode": "yes"}) })
	s.configure(t, map[string]any{"mode": "on"})
}

func jsonNumber(number uint64) string {
	text, _ := json.Marshal(number)
	return string(text)
}

func (s *servers) metric(t *testing.T, line string) bool {
	t.Helper()
	answer, err := http.Get("http://" + s.controller.admin + "/metrics")
	must(t, err)
	defer answer.Body.Close()
	var text strings.Builder
	buffer := make([]byte, 64*1024)
	for {
		count, err := answer.Body.Read(buffer)
		text.Write(buffer[:count])
		if err != nil {
			break
		}
	}
	return strings.Contains(text.String(), line)
}

// rotation adds a master secret, then names it.
func rotation(t *testing.T, s *servers) {
	uid := s.revision(t, "shop", "keys-00001")
	token := s.tokenOf(t, s.create(t, pod("shop", "keys-1", "keys-00001", uid, nil)), audience)
	before := s.keys(t, token, "keys-00001")
	mode := s.mode(t, token, "")
	began := time.Now()
	s.addMaster(t, 2)
	added := s.mode(t, token, "?revision="+jsonNumber(mode.Revision))
	t.Logf("a new master secret was announced after %.1f s", time.Since(began).Seconds())
	if added.Keys == mode.Keys || added.Mode != mode.Mode {
		t.Fatalf("%+v, before %+v", added, mode)
	}
	accepted := s.keys(t, token, "keys-00001")
	if len(accepted.Keys) != 6 || accepted.active() != before.active() {
		t.Fatalf("%d keys, active %s, before %s", len(accepted.Keys), accepted.active(), before.active())
	}
	began = time.Now()
	s.configure(t, map[string]any{"sealing-master": "2"})
	named := s.mode(t, token, "?revision="+jsonNumber(added.Revision))
	t.Logf("it was told to seal after %.3f s", time.Since(began).Seconds())
	sealing := s.keys(t, token, "keys-00001")
	if named.Keys == added.Keys || sealing.active() == before.active() || len(sealing.Keys) != 6 {
		t.Fatalf("active %s, before %s", sealing.active(), before.active())
	}
	// What was sealed before is still accepted, with the same secrets.
	for _, old := range before.Keys {
		found := false
		for _, key := range sealing.Keys {
			found = found || (key.ID == old.ID && key.Secret == old.Secret)
		}
		if !found {
			t.Errorf("key %s is not accepted any more", old.ID)
		}
	}
}

// guards marks pods, and leaves alone what others have marked.
func guards(t *testing.T, s *servers) {
	uid := s.revision(t, "shop", "guards-00001")
	plain := s.create(t, pod("shop", "guards-1", "guards-00001", uid, nil))
	theirs := s.create(t, pod("shop", "guards-2", "guards-00001", uid, nil))
	s.annotate(t, theirs, "somebody", map[string]any{cost: "-5", evict: "true"})
	report := func(object *core.Pod, holding string) {
		t.Helper()
		status, reason, _ := ask(t, s.asker(t), http.MethodPost, "/v1/holding", s.tokenOf(t, object, audience), `{"holding":"`+holding+`"}`)
		if status != http.StatusNoContent {
			t.Fatalf("%d %s", status, reason)
		}
	}
	annotations := func(object *core.Pod) map[string]string {
		t.Helper()
		found, err := s.client.CoreV1().Pods(object.Namespace).Get(context.Background(), object.Name, meta.GetOptions{})
		must(t, err)
		return found.Annotations
	}
	is := func(object *core.Pod, expected map[string]string) func() bool {
		return func() bool {
			found := annotations(object)
			for _, name := range []string{cost, evict, disrupt} {
				if value, there := found[name]; value != expected[name] || there != (expected[name] != "") {
					return false
				}
			}
			return true
		}
	}
	report(plain, "some")
	report(theirs, "much")
	eventually(t, "a pod that holds something costs", is(plain, map[string]string{cost: "1000"}))
	eventually(t, "others' marks stay", is(theirs, map[string]string{cost: "-5", evict: "true", disrupt: "true"}))
	began := time.Now()
	report(plain, "much")
	eventually(t, "a pod that holds much is guarded", is(plain, map[string]string{cost: "1000", evict: "false", disrupt: "true"}))
	t.Logf("the second change of a pod was written after %.1f s", time.Since(began).Seconds())
	// Somebody takes one of ours over: from then on it is theirs.
	s.annotate(t, plain, "somebody", map[string]any{cost: "7"})
	report(plain, "nothing")
	report(theirs, "nothing")
	eventually(t, "our marks go, theirs stay", is(plain, map[string]string{cost: "7"}))
	eventually(t, "our mark goes, theirs stay", is(theirs, map[string]string{cost: "-5", evict: "true"}))
}
