package main

import (
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/crypto/ssh"
)

// rekeyConfig is config with new keys after so many bytes. The callback is called in each key exchange.
func rekeyConfig(name, user string, key ssh.Signer, rekey uint64) *ssh.ClientConfig {
	config := config(user, key)
	config.RekeyThreshold = rekey
	config.HostKeyCallback = func(string, net.Addr, ssh.PublicKey) error {
		fmt.Fprintln(os.Stderr, name+": new keys")
		return nil
	}
	return config
}

// transfer prints the output of the command DOWN, then that of the command UP, which gets the contents of FILE.
func transfer(arguments []string) {
	proxy, user, target, login := arguments[0], arguments[1], arguments[3], arguments[4]
	key := signer(arguments[2])
	contents, err := os.Open(arguments[5])
	check(err)
	rekey, err := strconv.ParseUint(arguments[8], 10, 64)
	check(err)
	outer, err := ssh.Dial("tcp", proxy, rekeyConfig("outer", user, key, rekey))
	check(err)
	defer outer.Close()
	tunnel, err := outer.Dial("tcp", target)
	check(err)
	connection, channels, requests, err := ssh.NewClientConn(
		tunnel, target, rekeyConfig("inner", login, key, rekey))
	check(err)
	client := ssh.NewClient(connection, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	check(err)
	session.Stdout = os.Stdout
	check(session.Run(arguments[6]))
	session, err = client.NewSession()
	check(err)
	session.Stdin, session.Stdout = contents, os.Stdout
	check(session.Run(arguments[7]))
}
