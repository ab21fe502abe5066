package cluster

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestCommands takes a cluster with Knative's own ConfigMaps to Zipline and back, by the commands an operator has.
func TestCommands(t *testing.T) {
	s := start(t)
	s.definitions(t)
	s.namespace(t, "shop")
	s.namespace(t, "knative-serving")
	config := filepath.Join(environment(t, "ZIPLINE_KNATIVE_SERVING"), "config", "core", "configmaps")
	for _, name := range []string{"deployment.yaml", "features.yaml"} {
		content, err := os.ReadFile(filepath.Join(config, name))
		must(t, err)
		s.apply(t, content)
	}
	c := commands{servers: s, kubeconfig: s.kubeconfig(t)}
	stock := c.settings(t)

	t.Run("a release that nobody knows is refused", func(t *testing.T) {
		status, out := c.run(t, "install", controllerImage, proxyImage)
		if status != 2 || !strings.Contains(out, "devel is not known") || !strings.Contains(out, "--accept-knative devel") {
			t.Errorf("%d: %s", status, out)
		}
		if _, err := s.client.CoreV1().Namespaces().Get(context.Background(), system, meta.GetOptions{}); err == nil {
			t.Error("something was installed all the same")
		}
	})
	// As a release is labelled.
	for _, name := range []string{"config-deployment", "config-features"} {
		patch := []byte(`{"metadata":{"labels":{"app.kubernetes.io/version":"1.23.0"}}}`)
		_, err := s.client.CoreV1().ConfigMaps("knative-serving").Patch(context.Background(), name, types.MergePatchType, patch, meta.PatchOptions{})
		must(t, err)
	}
	t.Run("a dry run changes nothing", func(t *testing.T) {
		c.succeed(t, "install", "--secrets-only")
		c.succeed(t, "install", controllerImage, proxyImage, "--cluster-wide", "--dry-run")
		if _, err := s.client.AppsV1().Deployments(system).Get(context.Background(), audience, meta.GetOptions{}); err == nil {
			t.Error("the controller was installed")
		}
		same(t, "settings", c.settings(t), stock)
	})
	t.Run("installing twice keeps the secrets", func(t *testing.T) {
		c.succeed(t, "install", controllerImage, proxyImage)
		secrets := c.secrets(t)
		c.succeed(t, "install", controllerImage, proxyImage)
		same(t, "secrets", c.secrets(t), secrets)
		same(t, "settings", c.settings(t), stock)
	})
	t.Run("the mode an operator chose stays", func(t *testing.T) {
		s.configure(t, map[string]any{"mode": "on"})
		c.succeed(t, "install", controllerImage, "--queue-proxy-image=registry.example/q:2")
		told, err := s.client.CoreV1().ConfigMaps(system).Get(context.Background(), "zipline-config", meta.GetOptions{})
		must(t, err)
		if told.Data["mode"] != "on" || told.Data["queue-proxy-images"] != "registry.example/q:2 registry.example/q:1" {
			t.Errorf("%v", told.Data)
		}
	})
	t.Run("a canary's pods get the queue-proxy, others do not", func(t *testing.T) {
		c.succeed(t, "install", controllerImage, proxyImage, "--canary=shop", "--network-policy=restrict")
		s.namespace(t, "elsewhere")
		var made *core.Pod
		eventually(t, "the canary's policy holds", func() bool {
			made = c.dryPod(t, "shop")
			return made.Spec.Containers[1].Image == "registry.example/q:1"
		})
		proxy := made.Spec.Containers[1]
		mounts := map[string]string{}
		for _, mount := range proxy.VolumeMounts {
			mounts[mount.MountPath] = mount.Name
		}
		for _, path := range []string{"/var/run/secrets/tokens", "/etc/podinfo"} {
			found := false
			for _, volume := range made.Spec.Volumes {
				found = found || volume.Name == mounts[path]
			}
			if !found {
				t.Errorf("nothing is mounted at %s: %v", path, mounts)
			}
		}
		for _, variable := range proxy.Env {
			if variable.Name == "ROOT_CA" && variable.Value != c.rootCA(t) {
				t.Errorf("ROOT_CA is %q", variable.Value)
			}
		}
		if user := made.Spec.Containers[0]; user.Image != "registry.example/app" || len(user.VolumeMounts) > 1 {
			t.Errorf("the user's container was changed: %+v", user)
		}
		if other := c.dryPod(t, "elsewhere"); other.Spec.Containers[1].Image != "registry.example/stock" {
			t.Errorf("elsewhere has %s", other.Spec.Containers[1].Image)
		}
	})
	t.Run("everywhere, by Knative's settings", func(t *testing.T) {
		status, out := c.run(t, "install", controllerImage, proxyImage, "--cluster-wide")
		if status != 2 || !strings.Contains(out, "--yes") {
			t.Errorf("it did not ask: %d %s", status, out)
		}
		c.succeed(t, "install", controllerImage, proxyImage, "--cluster-wide", "--yes")
		settings := c.settings(t)["config-deployment"]
		if settings["queue-sidecar-image"] != "registry.example/q:1" || settings["queue-sidecar-token-audiences"] != audience ||
			strings.TrimSpace(settings["queue-sidecar-rootca"]) != strings.TrimSpace(c.rootCA(t)) {
			t.Errorf("%v", settings)
		}
		c.succeed(t, "install", controllerImage, proxyImage, "--cluster-wide", "--yes")
		same(t, "settings", c.settings(t)["config-deployment"], settings)
	})
	t.Run("check names what is wrong", func(t *testing.T) {
		// No kubelet here, so no controller: everything else is as it should be.
		c.findings(t, map[string]string{"controller": "error"})
		rbac := s.client.RbacV1().ClusterRoleBindings()
		must(t, rbac.Delete(context.Background(), audience, meta.DeleteOptions{}))
		s.configure(t, map[string]any{"mode": "maybe"})
		must(t, s.client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Delete(context.Background(), "zipline-audience-tokens", meta.DeleteOptions{}))
		must(t, s.client.CoreV1().Secrets(system).Delete(context.Background(), "zipline-master", meta.DeleteOptions{}))
		eventually(t, "the API server has seen it", func() bool {
			status, out := c.run(t, "check", "--json")
			return status == 1 && strings.Contains(out, "may not create tokenreviews")
		})
		c.findings(t, map[string]string{"controller": "error", "permissions": "error", "mode": "error", "audience": "error", "master key": "error"})
		s.configure(t, map[string]any{"mode": "receive"})
		c.succeed(t, "install", controllerImage, proxyImage, "--cluster-wide", "--yes")
		eventually(t, "the API server has seen that as well", func() bool {
			_, out := c.run(t, "check", "--json")
			return !strings.Contains(out, "may not create tokenreviews")
		})
		c.findings(t, map[string]string{"controller": "error"})
	})
	t.Run("back to stock", func(t *testing.T) {
		c.succeed(t, "uninstall", "--dry-run")
		c.succeed(t, "uninstall")
		same(t, "settings", c.settings(t), stock)
		secrets := c.secrets(t)
		if len(secrets) != 3 {
			t.Errorf("secrets are gone: %v", secrets)
		}
		c.succeed(t, "uninstall", "--purge")
		// Nobody empties namespaces here, so it can only be on its way.
		namespace, err := s.client.CoreV1().Namespaces().Get(context.Background(), system, meta.GetOptions{})
		if err == nil && namespace.DeletionTimestamp == nil {
			t.Error("the namespace stays")
		}
	})
}

const (
	controllerImage = "--controller-image=registry.example/c:1"
	proxyImage      = "--queue-proxy-image=registry.example/q:1"
)

// commands runs `zipline knative` as an administrator.
type commands struct {
	*servers
	kubeconfig string
}

// kubeconfig is how an administrator signs in.
func (s *servers) kubeconfig(t *testing.T) string {
	t.Helper()
	encode := base64.StdEncoding.EncodeToString
	tls := s.admin.TLSClientConfig
	content, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "it",
		"contexts": []any{map[string]any{"name": "it", "context": map[string]any{"cluster": "it", "user": "it"}}},
		"clusters": []any{map[string]any{"name": "it", "cluster": map[string]any{
			"server": s.admin.Host, "certificate-authority-data": encode(tls.CAData),
		}}},
		"users": []any{map[string]any{"name": "it", "user": map[string]any{
			"client-certificate-data": encode(tls.CertData), "client-key-data": encode(tls.KeyData),
		}}},
	})
	must(t, err)
	return write(t, s.folder, "kubeconfig", content)
}

// run gives the exit status and both outputs.
func (c commands) run(t *testing.T, verb string, args ...string) (int, string) {
	t.Helper()
	all := append([]string{"knative", verb, "--kubectl", environment(t, "ZIPLINE_KUBECTL"), "--kubeconfig", c.kubeconfig}, args...)
	command := exec.Command(environment(t, "ZIPLINE"), all...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	command.Env = []string{"HOME=" + c.folder, "PATH=" + os.Getenv("PATH")}
	err := command.Run()
	if _, ended := err.(*exec.ExitError); err != nil && !ended {
		t.Fatal(err)
	}
	return command.ProcessState.ExitCode(), output.String()
}

func (c commands) succeed(t *testing.T, verb string, args ...string) {
	t.Helper()
	if status, out := c.run(t, verb, args...); status != 0 {
		t.Fatalf("zipline knative %s %s: %d\n%s", verb, strings.Join(args, " "), status, out)
	}
}

// settings are the data of Knative's ConfigMaps.
func (c commands) settings(t *testing.T) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	for _, name := range []string{"config-deployment", "config-features"} {
		object, err := c.client.CoreV1().ConfigMaps("knative-serving").Get(context.Background(), name, meta.GetOptions{})
		must(t, err)
		all[name] = object.Data
	}
	return all
}

func (c commands) secrets(t *testing.T) map[string]map[string][]byte {
	t.Helper()
	list, err := c.client.CoreV1().Secrets(system).List(context.Background(), meta.ListOptions{})
	must(t, err)
	all := map[string]map[string][]byte{}
	for _, secret := range list.Items {
		all[secret.Name] = secret.Data
	}
	return all
}

func (c commands) rootCA(t *testing.T) string { return string(c.secrets(t)["zipline-ca"]["tls.crt"]) }

// dryPod is what the API server would make of a pod of Knative's.
func (c commands) dryPod(t *testing.T, namespace string) *core.Pod {
	t.Helper()
	wanted := pod(namespace, "canary", "cart-00001", "", func(p *core.Pod) {
		p.Spec.Volumes, p.Spec.Containers[1].VolumeMounts = nil, nil
		p.Spec.Containers[1].Image = "registry.example/stock"
		p.Spec.Containers[1].Env = []core.EnvVar{{Name: "ROOT_CA"}}
	})
	made, err := c.client.CoreV1().Pods(namespace).Create(context.Background(), wanted, meta.CreateOptions{DryRun: []string{meta.DryRunAll}})
	must(t, err)
	return made
}

// findings holds a check to the levels of what is not well; every other finding must be.
func (c commands) findings(t *testing.T, bad map[string]string) {
	t.Helper()
	_, out := c.run(t, "check", "--json")
	var report struct {
		Findings []struct{ Check, Level, Found, Todo string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, finding := range report.Findings {
		wanted, named := bad[finding.Check]
		if !named {
			wanted = "ok"
		}
		if finding.Level != wanted {
			t.Errorf("%s is %s, not %s: %s", finding.Check, finding.Level, wanted, finding.Found)
		}
		if finding.Level != "ok" && finding.Todo == "" {
			t.Errorf("%s does not say what to do", finding.Check)
		}
	}
	if len(report.Findings) < 12 {
		t.Errorf("%d findings", len(report.Findings))
	}
}

func same[T any](t *testing.T, what string, got, wanted T) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		t.Errorf("%s are\n%v, not\n%v", what, got, wanted)
	}
}
