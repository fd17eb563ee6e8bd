$folder = "$env:SystemRoot\System32\Sysprep"
$state = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Setup\State'
$status = 'HKLM:\SYSTEM\Setup\Status\SysprepStatus'
$answers = Join-Path $folder 'forge.xml'
$cached = "$env:SystemRoot\Panther\unattend.xml"
[IO.File]::WriteAllText($answers, [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('@UNATTEND@')))
# What an earlier run left there is not this run's proof, and another's answers are not the clones'.
Remove-Item -Force -ErrorAction SilentlyContinue -Path $cached, "$folder\Panther\setuperr.log", "$folder\Panther\setupact.log", "$folder\Sysprep_succeeded.tag"
$process = Start-Process -FilePath "$folder\sysprep.exe" -PassThru -Wait -ArgumentList `
  '/generalize', '/oobe', '/quit', '/quiet', "/unattend:$answers"
$image = (Get-ItemProperty -Path $state -ErrorAction SilentlyContinue).ImageState
$general = (Get-ItemProperty -Path $status -ErrorAction SilentlyContinue).GeneralizationState
if ($image -ne 'IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE') {
  Remove-Item -Force -LiteralPath $answers -ErrorAction SilentlyContinue
  $errors = @(Get-Content -LiteralPath "$folder\Panther\setuperr.log" -ErrorAction SilentlyContinue | Select-Object -Last 12)
  throw ("sysprep ended with $($process.ExitCode) and the image is $image (GeneralizationState $general); " +
    'setuperr.log: ' + ($errors -join ' | '))
}
# The clones' first start reads its answers from here, and takes the passwords out of them when it is done: so nothing removes
# this file, and no other copy stays.
if (-not (Test-Path -LiteralPath $cached)) { Copy-Item -LiteralPath $answers -Destination $cached }
Remove-Item -Force -LiteralPath $answers
"$image, GeneralizationState $general"
