# forge: get
$ErrorActionPreference='Stop'
$ProgressPreference='SilentlyContinue'
try {
  $from=[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('@PATH@'))
  $from=$ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($from)
  $file=[IO.File]::Open($from,'Open','Read','ReadWrite')
  try {
    if ($file.Length -gt @LIMIT@) { throw "it is larger than @LIMIT@ bytes" }
    $sha=[Security.Cryptography.SHA256]::Create()
    $b=New-Object byte[] 49152
    while (($n=$file.Read($b,0,$b.Length)) -gt 0) {
      [void]$sha.TransformBlock($b,0,$n,$b,0)
      [Console]::Out.WriteLine([Convert]::ToBase64String($b,0,$n))
    }
    [void]$sha.TransformFinalBlock($b,0,0)
  } finally { $file.Close() }
  [Console]::Out.WriteLine('forge-get '+[BitConverter]::ToString($sha.Hash).Replace('-',''))
} catch { [Console]::Error.WriteLine($_.Exception.Message); exit 1 }
