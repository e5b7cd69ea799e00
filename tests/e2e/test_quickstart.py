"""deploy/quickstart stops what it started: whatever the spelling of its directory, and however often it is interrupted."""
import os
import shutil
import signal
import stat
import subprocess
import time
import unittest

import harness

QUICKSTART = os.path.join(harness.TREE, "deploy", "quickstart")

# A server that takes its time to stop; its pid file is what the script goes by.
SERVER = """#!/bin/bash
trap 'sleep 1; exit 0' TERM
echo $$ >"$2"
while true; do sleep 0.05; done
"""


def executable(path, text):
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)


def runs(pid):
    """One that has ended and was not yet waited for has no command line."""
    try:
        with open("/proc/%d/cmdline" % pid) as f:
            return f.read() != ""
    except FileNotFoundError:
        return False


class Quickstart(unittest.TestCase):
    def setUp(self):
        where = harness.Dir()
        self.dir = where.__enter__()
        self.addCleanup(where.__exit__)
        self.server = self.dir.file("server")
        executable(self.server, SERVER)

    def start_server(self, data):
        os.mkdir(data)
        open(os.path.join(data, ".quickstart"), "w").close()
        pid_file = os.path.join(data, "primary.pid")
        child = subprocess.Popen([self.server, os.path.join(data, "primary.bts"), pid_file])
        self.addCleanup(lambda: (child.kill(), child.wait()))
        harness.await_true(lambda: os.path.exists(pid_file) and os.path.getsize(pid_file), what="the server")
        return child

    def test_stop_by_other_spellings(self):
        data = self.dir.file("qs")
        os.symlink(data, self.dir.file("link"))
        for spelling in ("qs", "./qs/", "qs/../qs", "link", data + "//"):
            child = self.start_server(data)
            done = subprocess.run([QUICKSTART, "--dir", spelling, "--stop"], cwd=self.dir.path, stdout=subprocess.DEVNULL)
            self.assertEqual(done.returncode, 0)
            self.assertFalse(runs(child.pid), "%r left the server running" % spelling)
            child.wait()
            shutil.rmtree(data)

    def test_second_interrupt_while_stopping(self):
        """A tree whose build starts a server and hangs, interrupted there, and again while the server stops."""
        data, tools = self.dir.file("qs"), self.dir.file("tools")
        os.makedirs(self.dir.file("deploy"))
        os.mkdir(tools)
        script = shutil.copy(QUICKSTART, self.dir.file("deploy"))
        executable(self.dir.file("deploy/install-packages"), "#!/bin/sh\n")
        pid_file = os.path.join(data, "primary.pid")
        executable(os.path.join(tools, "cmake"), "#!/bin/bash\nsetsid %s %s %s </dev/null >/dev/null 2>&1 &\nsleep 60\n"
                   % (self.server, os.path.join(data, "primary.bts"), pid_file))
        child = subprocess.Popen([script, "--dir", data], start_new_session=True, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, env=dict(os.environ, PATH=tools + ":" + os.environ["PATH"]),
                                 preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        harness.await_true(lambda: os.path.exists(pid_file) and os.path.getsize(pid_file), what="the server")
        with open(pid_file) as f:
            server = int(f.read())
        while child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
            time.sleep(0.1)
        left = runs(server)
        if left:
            os.kill(server, signal.SIGKILL)
        self.assertFalse(left, "the server was left running")
        self.assertEqual(child.returncode, 130)


if __name__ == "__main__":
    harness.main()
