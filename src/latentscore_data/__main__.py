from latentscore_data.cli import main

main()
