# install.ps1: checks every file of this folder, then installs it into .venv here. Needs Python and no network.
# install.ps1 --upgrade OLD: the same, and takes settings, keys, prompts and state over from the folder OLD.
# install.ps1 --rollback: back to the folder that the upgrade came from.
$ErrorActionPreference = 'Stop'
$check = 'import sys; sys.exit(sys.version_info < (3, 11))'

function Test-Python([string[]] $command) {
    if (-not (Get-Command $command[0] -ErrorAction SilentlyContinue)) { return $false }
    $first, $rest = $command
    try { & $first @rest -c $check 2>$null | Out-Null } catch { return $false }
    return $LASTEXITCODE -eq 0
}

$candidates = @(@('py', '-@PYTHON@'), @('python'), @('python3'))
if ($env:PYTHON) { $candidates = @(, @($env:PYTHON)) + $candidates }
foreach ($candidate in $candidates) {
    if (Test-Python $candidate) {
        $first, $rest = $candidate
        & $first @rest -I (Join-Path $PSScriptRoot 'installer.py') @args
        exit $LASTEXITCODE
    }
}
[Console]::Error.WriteLine('install.ps1: no Python 3.11 or newer is here: install Python @PYTHON@, then run this again')
[Console]::Error.WriteLine('install.ps1: 这里没有 Python 3.11 或更新的版本：请先安装 Python @PYTHON@，再执行一次')
exit 1
