from optgen.cli import main

main()
