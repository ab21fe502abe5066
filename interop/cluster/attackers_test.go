package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// forge signs a token bound to a pod, with any key and any life.
func forge(t *testing.T, key *ecdsa.PrivateKey, object *core.Pod, issued, expires time.Time) string {
	t.Helper()
	claims := map[string]any{
		"iss": issuer, "aud": []string{audience}, "iat": issued.Unix(), "nbf": issued.Unix(), "exp": expires.Unix(),
		"sub": "system:serviceaccount:" + object.Namespace + ":default",
		"kubernetes.io": map[string]any{
			"namespace":      object.Namespace,
			"serviceaccount": map[string]any{"name": "default", "uid": ""},
			"pod":            map[string]any{"name": object.Name, "uid": string(object.UID)},
		},
	}
	text := func(value any) string {
		bytes, err := json.Marshal(value)
		must(t, err)
		return base64.RawURLEncoding.EncodeToString(bytes)
	}
	signed := text(map[string]string{"alg": "ES256", "typ": "JWT"}) + "." + text(claims)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	must(t, err)
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// attackers runs every token that must not get keys, and the ones that must.
func attackers(t *testing.T, s *servers) {
	uid := s.revision(t, "shop", "app-00001")
	s.revision(t, "shop", "app-00002")
	other := s.revision(t, "other", "app-00001")
	number := 0
	launch := func(t *testing.T, change func(*core.Pod)) *core.Pod {
		t.Helper()
		number++
		return s.create(t, pod("shop", fmt.Sprintf("app-00001-deployment-%d", number), "app-00001", uid, change))
	}
	good := launch(t, nil)
	goodToken := s.tokenOf(t, good, audience)
	// Whatever was shown or given, to be looked for in the log.
	secrets := []string{goodToken}
	changed := func(change func(*core.Pod)) func(*testing.T) string {
		return func(t *testing.T) string { return s.tokenOf(t, launch(t, change), audience) }
	}
	userMount := core.VolumeMount{Name: "tokens", MountPath: "/stolen"}

	t.Run("good", func(t *testing.T) {
		answer := s.keys(t, goodToken, "app-00001")
		if answer.Tenant != "shop" || len(answer.Keys) != 3 || answer.active() == "" || answer.Zone != zone {
			t.Errorf("unexpected answer: tenant %s, %d keys, zone %q", answer.Tenant, len(answer.Keys), answer.Zone)
		}
		for _, key := range answer.Keys {
			secrets = append(secrets, key.Secret)
		}
	})

	t.Run("another namespace gets its own keys", func(t *testing.T) {
		stranger := s.create(t, pod("other", "app-00001-deployment-1", "app-00001", other, nil))
		theirs := s.keys(t, s.tokenOf(t, stranger, audience), "app-00001")
		ours := s.keys(t, goodToken, "app-00001")
		if theirs.Tenant != "other" {
			t.Errorf("tenant %s", theirs.Tenant)
		}
		for _, their := range theirs.Keys {
			for _, our := range ours.Keys {
				if their.ID == our.ID || their.Secret == our.Secret {
					t.Error("two namespaces share a key")
				}
			}
		}
	})

	for _, attack := range []struct {
		name    string
		status  int
		reasons string
		claimed string
		token   func(*testing.T) string
	}{
		{"wrong audience", 401, "token-refused", "", func(t *testing.T) string { return s.tokenOf(t, launch(t, nil), "somebody-else") }},
		{"the API server's audience", 401, "token-refused", "", func(t *testing.T) string { return s.tokenOf(t, launch(t, nil)) }},
		{"unbound", 403, "token-unbound", "", func(t *testing.T) string { return s.request(t, "shop", "default", nil, audience) }},
		{"bound to a Secret", 403, "token-unbound", "", func(t *testing.T) string {
			secret, err := s.client.CoreV1().Secrets("shop").Create(context.Background(), &core.Secret{ObjectMeta: meta.ObjectMeta{Name: "mine"}}, meta.CreateOptions{})
			must(t, err)
			return s.request(t, "shop", "default", &authentication.BoundObjectReference{Kind: "Secret", APIVersion: "v1", Name: "mine", UID: secret.UID}, audience)
		}},
		// Whether the API server or the controller notices first is a matter of milliseconds.
		{"deleted pod", 401, "token-refused pod-not-found", "", func(t *testing.T) string {
			gone := launch(t, nil)
			token := s.tokenOf(t, gone, audience)
			s.remove(t, gone)
			return token
		}},
		// The API server remembers a good token for some seconds, so this one comes as far as the pod itself.
		{"deleted pod, token used before", 403, "pod-not-found token-refused", "", func(t *testing.T) string {
			gone := launch(t, nil)
			token := s.tokenOf(t, gone, audience)
			s.keys(t, token, "app-00001")
			s.remove(t, gone)
			return token
		}},
		{"replayed after the pod's UID has changed", 403, "pod-replaced token-refused", "", func(t *testing.T) string {
			first := launch(t, nil)
			token := s.tokenOf(t, first, audience)
			s.keys(t, token, "app-00001")
			s.remove(t, first)
			s.create(t, pod("shop", first.Name, "app-00001", uid, nil))
			return token
		}},
		{"other namespace's Revision", 403, "revision-not-found", "", changed(func(p *core.Pod) { p.Labels["serving.knative.dev/revisionUID"] = string(other) })},
		{"other Revision", 403, "revision-mismatch", "app-00002", func(*testing.T) string { return goodToken }},
		{"Revision that is not there", 403, "revision-not-found", "app-00009", changed(func(p *core.Pod) { p.Labels["serving.knative.dev/revision"] = "app-00009" })},
		{"no Revision at all", 403, "not-a-revision", "", changed(func(p *core.Pod) { p.Labels = nil })},
		{"audience mounted by the user's container", 403, "audience-elsewhere", "", changed(func(p *core.Pod) {
			p.Spec.Containers[0].VolumeMounts = []core.VolumeMount{userMount}
		})},
		{"audience mounted by an init container", 403, "audience-elsewhere", "", changed(func(p *core.Pod) {
			p.Spec.InitContainers = []core.Container{{Name: "init", Image: "app", VolumeMounts: []core.VolumeMount{userMount}}}
		})},
		{"audience in a second volume of the user's", 403, "audience-elsewhere", "", changed(func(p *core.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, *p.Spec.Volumes[0].DeepCopy())
			p.Spec.Volumes[1].Name = "mine"
			p.Spec.Containers[0].VolumeMounts = []core.VolumeMount{{Name: "mine", MountPath: "/mine"}}
		})},
		{"token asked for by hand", 403, "audience-not-mounted", "", changed(func(p *core.Pod) { p.Spec.Containers[1].VolumeMounts = nil })},
		{"wrong image of the queue-proxy", 403, "image-not-allowed", "", changed(func(p *core.Pod) { p.Spec.Containers[1].Image = "evil/queue-proxy" })},
		{"queue-proxy made to run something else", 403, "queue-proxy-changed", "", changed(func(p *core.Pod) { p.Spec.Containers[1].Command = []string{"/bin/sh"} })},
		{"shared process namespace", 403, "shared-process-namespace", "", changed(func(p *core.Pod) { yes := true; p.Spec.ShareProcessNamespace = &yes })},
		{"the node's network", 403, "host-network", "", changed(func(p *core.Pod) { p.Spec.HostNetwork = true })},
		{"the node's processes", 403, "host-pid", "", changed(func(p *core.Pod) { p.Spec.HostPID = true })},
		{"ephemeral container, after the token was good", 403, "ephemeral-container", "", func(t *testing.T) string {
			debugged := launch(t, nil)
			token := s.tokenOf(t, debugged, audience)
			s.keys(t, token, "app-00001")
			debugged.Spec.EphemeralContainers = []core.EphemeralContainer{{
				EphemeralContainerCommon: core.EphemeralContainerCommon{Name: "debug", Image: "busybox", TerminationMessagePolicy: core.TerminationMessageReadFile},
				TargetContainerName:      "queue-proxy",
			}}
			_, err := s.client.CoreV1().Pods("shop").UpdateEphemeralContainers(context.Background(), debugged.Name, debugged, meta.UpdateOptions{})
			must(t, err)
			return token
		}},
		{"pod that has ended", 403, "pod-ended", "", func(t *testing.T) string {
			ended := launch(t, nil)
			token := s.tokenOf(t, ended, audience)
			patch := []byte(`{"status":{"phase":"Failed"}}`)
			_, err := s.client.CoreV1().Pods("shop").Patch(context.Background(), ended.Name, types.MergePatchType, patch, meta.PatchOptions{}, "status")
			must(t, err)
			return token
		}},
		{"the controller's own account", 403, "token-unbound", "", func(t *testing.T) string { return s.request(t, system, "zipline-controller", nil, audience) }},
		{"expired", 401, "token-refused", "", func(t *testing.T) string {
			return forge(t, s.accountKey, good, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
		}},
		{"signed by somebody else", 401, "token-refused", "", func(t *testing.T) string {
			return forge(t, newKey(t), good, time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
		}},
		{"garbage", 401, "token-refused", "", func(*testing.T) string { return "garbage" }},
		{"cut", 401, "token-refused", "", func(*testing.T) string { return goodToken[:len(goodToken)-10] }},
		{"no token", 401, "token-missing", "", func(*testing.T) string { return "" }},
		{"longer than any token", 401, "token-malformed", "", func(*testing.T) string { return strings.Repeat("a", 17*1024) }},
	} {
		t.Run(attack.name, func(t *testing.T) {
			token := attack.token(t)
			claimed := attack.claimed
			if claimed == "" {
				claimed = "app-00001"
			}
			status, reason, body := ask(t, s.asker(t), http.MethodPost, "/v1/keys", token, `{"revision":"`+claimed+`"}`)
			if len(token) > 20 {
				secrets = append(secrets, token)
			}
			expected := strings.Fields(attack.reasons)
			if (status != attack.status && len(expected) == 1) || !strings.Contains(" "+attack.reasons+" ", " "+reason+" ") || reason == "" {
				t.Errorf("%d %s, expected %d %s: %s", status, reason, attack.status, attack.reasons, body)
			}
			eventually(t, "the refusal is in the audit log", func() bool {
				return strings.Contains(s.controller.log.String(), `"reason":"`+reason+`"`)
			})
		})
	}

	t.Run("still good", func(t *testing.T) { s.keys(t, goodToken, "app-00001") })
	t.Run("no secret stands in the log", func(t *testing.T) {
		for _, secret := range secrets {
			if strings.Contains(s.controller.log.String(), secret) {
				t.Error("a token or a key stands in the log")
			}
		}
	})

	t.Run("too many questions from one address", func(t *testing.T) {
		client, refused := s.asker(t), 0
		for range 60 {
			if status, _, _ := ask(t, client, http.MethodPost, "/v1/keys", "garbage", `{"revision":"x"}`); status == http.StatusTooManyRequests {
				refused++
			}
		}
		if refused == 0 {
			t.Error("nothing was refused")
		}
	})
	t.Run("a question that is too long", func(t *testing.T) {
		body := `{"revision":"` + strings.Repeat("a", 5000) + `"}`
		if status, reason, _ := ask(t, s.asker(t), http.MethodPost, "/v1/keys", goodToken, body); status != 400 || reason != "request-invalid" {
			t.Errorf("%d %s", status, reason)
		}
	})
}
