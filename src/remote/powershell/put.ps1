# forge: put
$ErrorActionPreference='Stop'
$ProgressPreference='SilentlyContinue'
try {
  $to=[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('@PATH@'))
  $to=$ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($to)
  [void][IO.Directory]::CreateDirectory([IO.Path]::GetDirectoryName($to))
  $part="$to.forge-"+[guid]::NewGuid().ToString('N')
  $file=[IO.File]::Create($part)
  try { foreach ($line in $input) { $b=[Convert]::FromBase64String($line); $file.Write($b,0,$b.Length) } } finally { $file.Close() }
  $sum=(Get-FileHash -LiteralPath $part -Algorithm SHA256).Hash
  if ($sum -ne '@SUM@') { Remove-Item -Force -LiteralPath $part; throw "the checksum differs: $sum instead of @SUM@" }
  Move-Item -Force -LiteralPath $part -Destination $to
  [Console]::Out.WriteLine("forge-put $sum")
} catch { [Console]::Error.WriteLine($_.Exception.Message); exit 1 }
