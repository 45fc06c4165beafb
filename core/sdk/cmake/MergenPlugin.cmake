# mergen_add_plugin(<kind> <name> SOURCES <file>... [LIBRARIES <target>...])
#
# Builds the plugin <kind>/<name> of this folder as mergen-<kind>-<name>.so from plugin.cpp, which holds the manifest, and
# the behaviour in SOURCES. The behaviour is also a static library, mergen_<kind>_<name>, so that tests link it without
# loading anything. LIBRARIES are what it needs from outside; the SDK and base come by themselves, and nothing else of
# Mergen can be named: a backend sees no other room.
function(mergen_add_plugin kind name)
    cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "SOURCES;LIBRARIES")
    if(arg_UNPARSED_ARGUMENTS OR NOT arg_SOURCES)
        message(FATAL_ERROR "mergen_add_plugin(${kind} ${name}): needs SOURCES, and LIBRARIES at most")
    endif()
    foreach(library IN LISTS arg_LIBRARIES)
        if(library MATCHES "^mergen")
            message(FATAL_ERROR "mergen_add_plugin(${kind} ${name}): ${library} is no library that a plugin may see")
        endif()
    endforeach()

    set(behaviour mergen_${kind}_${name})
    add_library(${behaviour} STATIC ${arg_SOURCES})
    target_include_directories(${behaviour} INTERFACE ${CMAKE_CURRENT_SOURCE_DIR})
    target_link_libraries(${behaviour} PUBLIC mergen_sdk mergen_base ${arg_LIBRARIES})

    set(library mergen_plugin_${kind}_${name})
    add_library(${library} MODULE plugin.cpp)
    target_link_libraries(${library} PRIVATE ${behaviour})
    target_link_options(${library} PRIVATE -Wl,-z,defs)
    set_target_properties(${library} PROPERTIES
        PREFIX "" OUTPUT_NAME mergen-${kind}-${name}
        LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib/mergen/plugins)
    set_property(GLOBAL APPEND PROPERTY MERGEN_PLUGINS ${library})
endfunction()
