"""Independent clients against the stand-in: pywinrm and pypsrp have to get from it what they get from Windows.

    strangers.py URL USER PASSWORD
"""

import sys

import winrm
from pypsrp.shell import Process, SignalCode, WinRS
from pypsrp.wsman import WSMan

url, user, password = sys.argv[1:]
host, port = url.split("//")[1].split(":")

# Sealed, over plain HTTP, by requests_ntlm.
session = winrm.Session(url + "/wsman", auth=(user, password), transport="ntlm", message_encryption="always")
result = session.run_cmd("echo from pywinrm; echo oh >&2; exit 7")
assert result.status_code == 7, result
assert result.std_out == b"from pywinrm\n" and result.std_err == b"oh\n", result

# Sealed, by pypsrp, with input to the command.
with WSMan(host, port=int(port), username=user, password=password, ssl=False, auth="ntlm", encryption="always",
           operation_timeout=20, read_timeout=60) as wsman:
    with WinRS(wsman) as shell:
        process = Process(shell, "echo from pypsrp; exit 3")
        process.invoke()
        process.signal(SignalCode.CTRL_C)
        assert (process.rc, process.stdout) == (3, b"from pypsrp\n"), (process.rc, process.stdout, process.stderr)

# Who does not know the password is refused by both.
try:
    winrm.Session(url + "/wsman", auth=(user, password + "x"), transport="ntlm").run_cmd("true")
except winrm.exceptions.InvalidCredentialsError:
    pass
else:
    raise SystemExit("the stand-in takes any password")
print("strangers content")
