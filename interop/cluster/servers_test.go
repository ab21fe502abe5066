package cluster

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// servers is one run: etcd, kube-apiserver, the controller, and how to speak to them.
type servers struct {
	folder     string
	authority  authority
	accountKey *ecdsa.PrivateKey
	admin      *rest.Config
	client     kubernetes.Interface
	dynamic    dynamic.Interface
	controller controller
}

// controller is the real one, as a process.
type controller struct {
	address string
	admin   string
	masters string
	log     *log
}

// log keeps what a process wrote.
type log struct {
	mutex sync.Mutex
	bytes bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.bytes.Write(p)
}

func (l *log) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.bytes.String()
}

const issuer = "https://kubernetes.default.svc"

func start(t *testing.T) *servers {
	t.Helper()
	s := &servers{folder: t.TempDir(), authority: newAuthority(t), accountKey: newKey(t)}
	binaries := environment(t, "ZIPLINE_CLUSTER")
	began := time.Now()
	etcd := s.startEtcd(t, filepath.Join(binaries, "etcd"))
	s.startKubernetes(t, filepath.Join(binaries, "kube-apiserver"), etcd)
	t.Logf("etcd and kube-apiserver were ready after %.1f s", time.Since(began).Seconds())
	return s
}

func environment(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: run make test-cluster", name)
	}
	return value
}

// process starts a program that ends with the test, and with the test's process should that be killed.
func process(t *testing.T, output io.Writer, variables []string, program string, arguments ...string) <-chan struct{} {
	t.Helper()
	command := exec.Command(program, arguments...)
	command.Stdout, command.Stderr = output, output
	command.Env = append([]string{"HOME=" + t.TempDir()}, variables...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, command.Start())
	ended := make(chan struct{})
	go func() {
		_ = command.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(15 * time.Second):
			_ = command.Process.Kill()
			<-ended
		}
	})
	return ended
}

// freePort gives a port that was free a moment ago: these servers cannot be told to choose one themselves.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	must(t, err)
	return port
}

func (s *servers) startEtcd(t *testing.T, binary string) string {
	t.Helper()
	url, peer := "http://127.0.0.1:"+freePort(t), "http://127.0.0.1:"+freePort(t)
	output := &log{}
	ended := process(t, output, nil, binary,
		"--data-dir="+filepath.Join(s.folder, "etcd"),
		"--listen-client-urls="+url, "--advertise-client-urls="+url,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer,
		"--unsafe-no-fsync", "--log-level=warn")
	until(t, "etcd", output, ended, func() bool {
		answer, err := http.Get(url + "/health")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	return url
}

func (s *servers) startKubernetes(t *testing.T, binary, etcd string) {
	t.Helper()
	certificate, key := s.authority.issue(t, pkix.Name{CommonName: "kube-apiserver"}, "localhost")
	port := freePort(t)
	output := &log{}
	ended := process(t, output, nil, binary,
		"--etcd-servers="+etcd,
		"--bind-address=127.0.0.1", "--secure-port="+port, "--endpoint-reconciler-type=none",
		"--cert-dir="+filepath.Join(s.folder, "apiserver"),
		"--tls-cert-file="+write(t, s.folder, "apiserver.crt", certificate),
		"--tls-private-key-file="+write(t, s.folder, "apiserver.key", key),
		"--client-ca-file="+write(t, s.folder, "ca.crt", s.authority.pem()),
		"--service-account-issuer="+issuer,
		"--service-account-key-file="+write(t, s.folder, "accounts.pub", publicPEM(t, s.accountKey)),
		"--service-account-signing-key-file="+write(t, s.folder, "accounts.key", privatePEM(t, s.accountKey)),
		"--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		// On by default in Kubernetes 1.36 only.
		"--feature-gates=MutatingAdmissionPolicy=true", "--runtime-config=admissionregistration.k8s.io/v1beta1=true", "-v=0")
	certificate, key = s.authority.issue(t, pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}})
	s.admin = &rest.Config{
		Host:            "https://127.0.0.1:" + port,
		TLSClientConfig: rest.TLSClientConfig{CAData: s.authority.pem(), CertData: certificate, KeyData: key},
		QPS:             1000, Burst: 1000,
		WarningHandler: rest.NoWarnings{},
	}
	var err error
	s.client, err = kubernetes.NewForConfig(s.admin)
	must(t, err)
	s.dynamic, err = dynamic.NewForConfig(s.admin)
	must(t, err)
	until(t, "kube-apiserver", output, ended, func() bool {
		answer, err := s.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(context.Background())
		return err == nil && string(answer) == "ok"
	})
}

// startController runs the real controller under its own service account, with the rights that were installed.
func (s *servers) startController(t *testing.T) {
	t.Helper()
	certificate, key := s.authority.issue(t, pkix.Name{CommonName: "zipline-controller"}, "zipline-controller.zipline-system.svc")
	tls := filepath.Join(s.folder, "tls")
	write(t, tls, "tls.crt", certificate)
	write(t, tls, "tls.key", key)
	s.controller.masters = filepath.Join(s.folder, "masters")
	s.addMaster(t, 1)
	token := s.request(t, system, "zipline-controller", nil)
	output := &log{}
	began := time.Now()
	ended := process(t, output, []string{
		"ZIPLINE_LISTEN=127.0.0.1:0", "ZIPLINE_ADMIN_LISTEN=127.0.0.1:0",
		"ZIPLINE_TLS_DIR=" + tls, "ZIPLINE_MASTER_DIR=" + s.controller.masters,
		"ZIPLINE_KUBERNETES=" + strings.TrimPrefix(s.admin.Host, "https://"),
		"ZIPLINE_KUBERNETES_CA=" + filepath.Join(s.folder, "ca.crt"),
		"ZIPLINE_KUBERNETES_TOKEN=" + write(t, s.folder, "controller.token", []byte(token+"\n")),
	}, environment(t, "ZIPLINE_CONTROLLER"))
	s.controller.log = output
	until(t, "the controller", output, ended, func() bool {
		lines := bufio.NewScanner(strings.NewReader(output.String()))
		for lines.Scan() {
			var line struct{ Message, API, Admin string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Message == "listening" {
				s.controller.address, s.controller.admin = line.API, line.Admin
			}
		}
		if s.controller.admin == "" {
			return false
		}
		answer, err := http.Get("http://" + s.controller.admin + "/readyz")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	t.Logf("the controller was ready after %.2f s", time.Since(began).Seconds())
}

func (s *servers) addMaster(t *testing.T, number int) {
	t.Helper()
	secret := make([]byte, 32)
	_, err := rand.Read(secret)
	must(t, err)
	write(t, s.controller.masters, fmt.Sprint(number), []byte(base64.StdEncoding.EncodeToString(secret)))
}

// until waits for a server, and shows what it wrote if it ends or takes too long.
func until(t *testing.T, name string, output *log, ended <-chan struct{}, ready func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-ended:
			t.Fatalf("%s ended:\n%s", name, output)
		case <-deadline:
			t.Fatalf("%s was not ready within two minutes:\n%s", name, output)
		case <-tick.C:
		}
	}
}
