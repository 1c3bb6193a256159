// Starts goroutines on several threads, allocates, and reads its own tables for a stack trace.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
)

func main() {
	var wait sync.WaitGroup
	total := 0
	var lock sync.Mutex
	for i := 0; i < 16; i++ {
		wait.Add(1)
		go func(n int) {
			defer wait.Done()
			lock.Lock()
			total += len(make([]byte, n<<16)) >> 16
			lock.Unlock()
		}(i)
	}
	wait.Wait()
	runtime.GC()
	buffer := make([]byte, 4096)
	trace := string(buffer[:runtime.Stack(buffer, false)])
	fmt.Println(total, strings.Contains(trace, "main.main"), os.Args[1])
	os.Exit(7)
}
