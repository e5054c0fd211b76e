// Command client talks to a target through the proxy with golang.org/x/crypto/ssh, and prints what it got.
//
//	client talk PROXY USER KEY TARGET LOGIN DIRECTORY FORWARD
//	client transfer PROXY USER KEY TARGET LOGIN FILE DOWN UP REKEY
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

type command struct {
	Out    string `json:"out"`
	Err    string `json:"err"`
	Status int    `json:"status"`
}

type result struct {
	Exec     command `json:"exec"`
	Pty      command `json:"pty"`
	Copied   bool    `json:"copied"`
	Greeting string  `json:"greeting"`
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func config(user string, key ssh.Signer) *ssh.ClientConfig {
	return &ssh.ClientConfig{
		User:            user,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	}
}

func status(err error) int {
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		return exit.ExitStatus()
	}
	check(err)
	return 0
}

func execute(client *ssh.Client) command {
	session, err := client.NewSession()
	check(err)
	defer session.Close()
	var out, errors bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = strings.NewReader("typed\n"), &out, &errors
	check(session.Setenv("LC_GO", "set"))
	code := status(session.Run("cat; echo $LC_GO; echo err >&2; exit 3"))
	return command{out.String(), errors.String(), code}
}

func terminal(client *ssh.Client) command {
	session, err := client.NewSession()
	check(err)
	defer session.Close()
	var out bytes.Buffer
	session.Stdout = &out
	input, err := session.StdinPipe()
	check(err)
	check(session.RequestPty("xterm", 30, 90, ssh.TerminalModes{ssh.ECHO: 0}))
	check(session.Shell())
	_, err = io.WriteString(input, "stty size; exit 4\n")
	check(err)
	code := status(session.Wait())
	return command{out.String(), "", code}
}

func copied(client *ssh.Client, directory string) bool {
	files, err := sftp.NewClient(client)
	check(err)
	defer files.Close()
	contents := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	file, err := files.Create(directory + "/there")
	check(err)
	_, err = io.Copy(file, bytes.NewReader(contents))
	check(err)
	check(file.Close())
	file, err = files.Open(directory + "/there")
	check(err)
	defer file.Close()
	got, err := io.ReadAll(file)
	check(err)
	return bytes.Equal(got, contents)
}

func greeting(client *ssh.Client, address string) string {
	connection, err := client.Dial("tcp", address)
	check(err)
	defer connection.Close()
	data := make([]byte, 8)
	_, err = io.ReadFull(connection, data)
	check(err)
	return string(data)
}

func signer(path string) ssh.Signer {
	pem, err := os.ReadFile(path)
	check(err)
	key, err := ssh.ParsePrivateKey(pem)
	check(err)
	return key
}

func main() {
	if os.Args[1] == "transfer" {
		transfer(os.Args[2:])
	} else {
		talk(os.Args[2:])
	}
}

func talk(arguments []string) {
	proxy, user, target, login := arguments[0], arguments[1], arguments[3], arguments[4]
	directory, forward := arguments[5], arguments[6]
	key := signer(arguments[2])
	outer, err := ssh.Dial("tcp", proxy, config(user, key))
	check(err)
	defer outer.Close()
	var tunnel net.Conn
	tunnel, err = outer.Dial("tcp", target)
	check(err)
	connection, channels, requests, err := ssh.NewClientConn(tunnel, target, config(login, key))
	check(err)
	client := ssh.NewClient(connection, channels, requests)
	defer client.Close()
	check(json.NewEncoder(os.Stdout).Encode(result{
		execute(client), terminal(client), copied(client, directory), greeting(client, forward),
	}))
}
